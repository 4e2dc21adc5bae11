"""One log line and a few counters for each request: ids, counts, durations and reasons, never content."""

import re
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import Counter, Gauge, Histogram

from trunkline.v1.completion_pb2 import Usage
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.ports import RequestRecord
from trunkline_server.telemetry.tally import Add, Tally

DURATION_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

REQUESTS: Final = Counter(
    "trunkline_requests_total",
    "Completions, by how they ended.",
    ("method", "route", "provider", "model", "reason"),
)
DURATION: Final = Histogram(
    "trunkline_request_duration_seconds",
    "From request to last event.",
    ("method", "provider", "model"),
    buckets=DURATION_BUCKETS,
)
FIRST_TOKEN: Final = Histogram(
    "trunkline_time_to_first_token_seconds",
    "From request to first content.",
    ("method", "provider", "model"),
    buckets=DURATION_BUCKETS,
)
TOKENS: Final = Counter("trunkline_tokens_total", "Tokens used.", ("provider", "model", "type"))
ATTEMPTS: Final = Counter(
    "trunkline_attempts_total",
    "Attempts at providers, by failure; empty for success.",
    ("provider", "model", "failure"),
)
HEDGES: Final = Counter(
    "trunkline_hedges_total",
    "Attempts made beside a silent one.",
    ("route", "provider", "model"),
)
DRAINED: Final = Counter(
    "trunkline_abandoned_tokens_total",
    "Tokens of answers that were read to their end after the caller had left.",
    ("provider", "model", "type"),
)
TURNED_AWAY: Final = Counter(
    "trunkline_requests_turned_away_total",
    "Requests refused under overload before they were read; they are in no other count.",
    ("criticality",),
)
IN_FLIGHT: Final = Gauge(
    "trunkline_requests_in_flight", "Completions running now.", multiprocess_mode="livesum"
)

WORD: Final = re.compile(r"[A-Za-z0-9_.:/=+-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class _Meters:
    """Where requests of one kind are counted. Looked up once and kept: their number is bounded by the catalog."""

    requests: Add
    duration: Add
    first_token: Add
    input_tokens: Add
    output_tokens: Add


class RequestTelemetry:
    """The `Telemetry` port."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        self._log = log
        self._tally = Tally()
        self._meters: dict[tuple[str, str, str, str, str], _Meters] = {}
        self._attempts: dict[tuple[str, str, str], Add] = {}

    def record(self, request: RequestRecord, now_s: float) -> None:
        """A request has ended."""
        duration_s = now_s - request.started_s
        kind = (
            request.method,
            request.route,
            request.provider,
            request.routed_model,
            request.reason,
        )
        meters = self._meters.get(kind)
        if meters is None:
            meters = self._meters[kind] = _meters(*kind)
        add = self._tally.add
        add(meters.requests, 1)
        meters.duration(duration_s)
        first_token_s = request.time_to_first_token_s
        if first_token_s is not None:
            meters.first_token(first_token_s)
            add(meters.input_tokens, request.input_tokens)
            add(meters.output_tokens, request.output_tokens)
        attempts = []
        for attempt in request.attempts:
            candidate = attempt.candidate
            self._count_attempt(candidate.provider, candidate.id, attempt.failure)
            attempts.append(
                {
                    "provider": candidate.provider,
                    "model": candidate.id,
                    "failure": attempt.failure,
                    "http_status": attempt.http_status,
                }
            )
        self._log.info(
            "request",
            request_id=request.request_id,
            trace_id=request.trace_id,
            method=request.method,
            key_id=request.key_id,
            requested_model=request.requested_model[:128],
            route=request.route,
            provider=request.provider,
            routed_model=request.routed_model,
            response_model=request.response_model,
            reason=request.reason,
            duration_s=round(duration_s, 6),
            time_to_first_token_s=None if first_token_s is None else round(first_token_s, 6),
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
            cached_input_tokens=request.cached_input_tokens,
            attempts=attempts,
        )

    def flush(self) -> None:
        """All that was counted so far shows from now on."""
        self._tally.flush()

    def attempt_failed(self, request_id: str, candidate: Candidate, error: UpstreamError) -> None:
        """An attempt has failed. Its code is logged; the provider's text is not: it may quote the prompt or our key."""
        self._log.warning(
            "attempt_failed",
            attempt_of=request_id,
            provider=candidate.provider,
            model=candidate.id,
            failure=error.failure.name,
            http_status=error.http_status,
            code=_word(error.code),
            retry_after_s=error.retry_after_s,
            upstream_request_id=_word(error.upstream_request_id),
        )

    def hedged(self, route: str, candidate: Candidate) -> None:
        """A hedge starts."""
        HEDGES.labels(route, candidate.provider, candidate.id).inc()

    def drained(self, request_id: str, candidate: Candidate, usage: Usage | None) -> None:
        """An answer without a caller has ended."""
        if usage is not None:
            for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                DRAINED.labels(candidate.provider, candidate.id, kind).inc(tokens)
        self._log.info(
            "abandoned_answer_read",
            attempt_of=request_id,
            provider=candidate.provider,
            model=candidate.id,
            input_tokens=usage.input_tokens if usage is not None else None,
            output_tokens=usage.output_tokens if usage is not None else None,
        )

    def _count_attempt(self, provider: str, model: str, failure: str) -> None:
        key = (provider, model, failure)
        add = self._attempts.get(key)
        if add is None:
            add = self._attempts[key] = ATTEMPTS.labels(*key).inc
        self._tally.add(add, 1)


def _word(text: str) -> str:
    """A code or an id as the provider wrote it; nothing where it wrote a text instead."""
    return text if WORD.match(text) else ""


def _meters(method: str, route: str, provider: str, model: str, reason: str) -> _Meters:
    return _Meters(
        requests=REQUESTS.labels(method, route, provider, model, reason).inc,
        duration=DURATION.labels(method, provider, model).observe,
        first_token=FIRST_TOKEN.labels(method, provider, model).observe,
        input_tokens=TOKENS.labels(provider, model, "input").inc,
        output_tokens=TOKENS.labels(provider, model, "output").inc,
    )
