"""One log line and a few counters for each request: ids, counts, durations and reasons, never content."""

from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge, Histogram

from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.ports import RequestRecord

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
TOKENS: Final = Counter("trunkline_tokens_total", "Tokens billed.", ("provider", "model", "type"))
ATTEMPTS: Final = Counter(
    "trunkline_attempts_total",
    "Attempts at providers, by failure; empty for success.",
    ("provider", "model", "failure"),
)
IN_FLIGHT: Final = Gauge(
    "trunkline_requests_in_flight", "Completions running now.", multiprocess_mode="livesum"
)


class RequestTelemetry:
    """The `Telemetry` port. Children of metrics are looked up once and kept: their number is bounded by the catalog."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        self._log = log
        self._children: dict[tuple[object, ...], Any] = {}

    def record(self, request: RequestRecord, now_s: float) -> None:
        """A request has ended."""
        duration_s = now_s - request.started_s
        provider, model, method = request.provider, request.routed_model, request.method
        self._child(REQUESTS, method, request.route, provider, model, request.reason).inc()
        self._child(DURATION, method, provider, model).observe(duration_s)
        if request.time_to_first_token_s is not None:
            self._child(FIRST_TOKEN, method, provider, model).observe(request.time_to_first_token_s)
        if request.input_tokens:
            self._child(TOKENS, provider, model, "input").inc(request.input_tokens)
        if request.output_tokens:
            self._child(TOKENS, provider, model, "output").inc(request.output_tokens)
        for attempt in request.attempts:
            self._child(
                ATTEMPTS, attempt.candidate.provider, attempt.candidate.id, attempt.failure
            ).inc()
        line: dict[str, Any] = {
            "request_id": request.request_id,
            "method": method,
            "key_id": request.key_id,
            "requested_model": request.requested_model[:128],
            "route": request.route,
            "provider": provider,
            "routed_model": model,
            "response_model": request.response_model,
            "reason": request.reason,
            "duration_s": round(duration_s, 6),
            "input_tokens": request.input_tokens,
            "output_tokens": request.output_tokens,
            "cached_input_tokens": request.cached_input_tokens,
            "attempts": [
                {
                    "provider": a.candidate.provider,
                    "model": a.candidate.id,
                    "failure": a.failure,
                    "http_status": a.http_status,
                }
                for a in request.attempts
            ],
        }
        if request.time_to_first_token_s is not None:
            line["time_to_first_token_s"] = round(request.time_to_first_token_s, 6)
        if request.trace_id:
            line["trace_id"] = request.trace_id
        self._log.info("request", **line)

    def attempt_failed(self, request_id: str, candidate: Candidate, error: UpstreamError) -> None:
        """An attempt has failed. Its code is logged; the provider's text is not: it may quote the prompt."""
        self._log.warning(
            "attempt_failed",
            attempt_of=request_id,
            provider=candidate.provider,
            model=candidate.id,
            failure=error.failure.name,
            http_status=error.http_status,
            code=error.code,
            retry_after_s=error.retry_after_s,
            upstream_request_id=error.upstream_request_id,
        )

    def _child(self, metric: Counter | Histogram, *labels: str) -> Any:
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child
