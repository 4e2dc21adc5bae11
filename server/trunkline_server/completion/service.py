"""A completion from the door to the last event: admit, choose, answer, settle.

`events` is the whole story, top to bottom. What the later rooms add (memory, cache, tools, panels) goes between its
lines; the edges see only batches of events.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from trunkline.v1.completion_event_pb2 import (
    AttemptFailed,
    CompleteResponse,
    RouteSelected,
    StreamCompleted,
    StreamStarted,
    UsageUpdate,
)
from trunkline.v1.completion_event_pb2 import (
    StreamInterrupted as StreamInterruptedEvent,
)
from trunkline.v1.completion_pb2 import Completion, Route, RouteReason, StructuredOutput, Usage
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    PreviewRouteResponse,
    RouteCandidate,
    StreamOptions,
)
from trunkline.v1.completion_spec_pb2 import CompletionSpec, UnsupportedPolicy
from trunkline_server.completion.admission import Admission
from trunkline_server.completion.attempts import (
    DEFAULT_MAX_ATTEMPTS,
    Batch,
    Hop,
    Limits,
    Try,
    Upstream,
)
from trunkline_server.core.attempts import set_duration
from trunkline_server.core.breaker import State
from trunkline_server.core.candidate import Candidate, Plan
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotSupported,
    TrunklineError,
)
from trunkline_server.core.fold import Fold, ended
from trunkline_server.core.ports import Callers, Prompt, RequestRecord, Router, Unencodable
from trunkline_server.core.pricing import price
from trunkline_server.core.usage import add
from trunkline_server.core.validation import MAX_IDEMPOTENCY_KEY_CHARS, check_spec

MAX_STREAM_S: Final = 600.0
MAX_UNARY_S: Final = 300.0
CHARS_PER_TOKEN: Final = (
    4  # A rule of thumb for English, good enough for what is marked as estimated.
)


@dataclass(frozen=True, slots=True)
class Call:
    """What came with a request beside its message.

    Attributes:
        authorization: the header's value, empty where none came.
        timeout_s: what the caller gave it, None for no limit.
        traceparent: for the upstream: the caller's trace, our span.
    """

    method: str
    request_id: str
    authorization: str = ""
    timeout_s: float | None = None
    idempotency_key: str = ""
    traceparent: str = ""
    tracestate: str = ""
    trace_id: str = ""


@dataclass(slots=True)
class Progress:
    """What `events` needs to know when something goes wrong in the middle."""

    hop: Hop | None = None
    served: Try | None = None
    route: Route | None = None
    usage: Usage = field(default_factory=Usage)
    told: int = 0  # Failed attempts that the caller knows of.

    def begin(
        self, plan: Plan, hop: Hop, batch: Batch, options: StreamOptions, head: CompleteResponse
    ) -> Batch:
        """The first batch of whoever serves from now on, with what is said before it."""
        is_first = self.served is None
        self.served = hop.served
        self.route = _route(plan, hop)
        before: Batch = []
        if is_first and not options.HasField("heartbeat_interval"):
            before.append(head)
        if options.include_attempts:
            before += [
                CompleteResponse(attempt_failed=AttemptFailed(attempt=attempt, will_failover=True))
                for attempt in hop.attempts[self.told :]
                if attempt.HasField("error")
            ]
            self.told = len(hop.attempts)
        selected = CompleteResponse(route_selected=RouteSelected(route=self.route))
        if is_first:
            return [*before, selected, *batch]
        if batch and batch[0].HasField("stream_reset"):
            return [*before, batch[0], selected, *batch[1:]]
        return before + batch


class Completions:
    """The use case behind every edge."""

    def __init__(
        self,
        *,
        admission: Admission,
        callers: Callers,
        router: Router,
        upstream: Upstream,
        mint_id: Callable[[], str],
    ) -> None:
        self.admission = admission
        self._callers = callers
        self._router = router
        self._upstream = upstream
        self._mint_id = mint_id

    def authenticate(self, call: Call) -> str:
        """The caller's key id. Raises: InvalidApiKey."""
        return self._callers.authenticate(call.authorization).key_id

    def stream(self, request: CompleteRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """The events of one completion, batch by batch. Close it when leaving early.

        Nothing comes before content unless a heartbeat was asked for; then StreamStarted comes at once.
        The last event is StreamCompleted, or StreamInterrupted when content was sent and an error follows.

        Raises:
            TrunklineError.
        """
        return self._events(
            request.spec, request.idempotency_key, request.stream_options, call, whole=False
        )

    async def unary(self, spec: CompletionSpec, idempotency_key: str, call: Call) -> Completion:
        """The finished answer. Raises: TrunklineError."""
        completion: Completion | None = None
        async with aclosing(
            self._events(spec, idempotency_key, _UNARY, call, whole=True)
        ) as batches:
            async for batch in batches:
                completion = batch[-1].completed.completion
        assert completion is not None
        return completion

    def preview(self, spec: CompletionSpec, call: Call) -> PreviewRouteResponse:
        """Who would be asked, best first, and who not and why. Raises: RequestError."""
        self.authenticate(call)
        check_spec(spec)
        plan = self._router.plan(spec, call.request_id)
        prompt = Prompt(spec=spec, stream=True)
        now_s = asyncio.get_running_loop().time()
        chosen: list[RouteCandidate] = []
        excluded = [_row(plan, e.candidate, e.reason) for e in plan.excluded]
        for candidate in plan.candidates:
            reason = self._exclusion(candidate, prompt, now_s)
            (excluded if reason else chosen).append(_row(plan, candidate, reason))
        return PreviewRouteResponse(candidates=chosen + excluded, resolved_mode=plan.resolved_mode)

    def _exclusion(self, candidate: Candidate, prompt: Prompt, now_s: float) -> str:
        if not self._upstream.circuits.allows(candidate, now_s):
            health = self._upstream.circuits.health(candidate)
            if health.breaker.state(now_s) is State.OPEN:
                return "the breaker is open"
            return "as busy as it can be" if health.is_full else "cooling down or on trial"
        try:
            warnings = self._upstream.providers.warnings(candidate, prompt)
        except Unencodable as error:
            return f"can't express {error}"
        if (
            warnings
            and prompt.spec.unsupported_policy == UnsupportedPolicy.UNSUPPORTED_POLICY_REJECT
        ):
            return f"can't honour {warnings[0].field}"
        return ""

    async def _events(
        self,
        spec: CompletionSpec,
        idempotency_key: str,
        options: StreamOptions,
        call: Call,
        *,
        whole: bool,
    ) -> AsyncGenerator[Batch, None]:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        record = RequestRecord(call.request_id, call.method, started_s, trace_id=call.trace_id)
        record.requested_model = spec.model
        progress = Progress()
        record.reason = "CANCELLED"  # Until another end is known.
        try:
            # admit
            caller = self._callers.authenticate(call.authorization)
            record.key_id = caller.key_id
            with await self.admission.admit(caller.criticality, spec.ByteSize()) as ticket:
                try:
                    _refuse_idempotency(idempotency_key, call)
                    check_spec(spec)
                    deadline = _deadline(call, started_s, whole)
                    # choose
                    plan = self._router.plan(spec, call.request_id)
                    record.route = plan.route
                    # answer
                    completion_id = f"cmpl_{self._mint_id()}"
                    created_s = time.time()
                    head = _started(completion_id, call.request_id, created_s)
                    if options.HasField("heartbeat_interval"):
                        yield [head]
                    prompt = Prompt(
                        spec, _streams(spec, plan, whole), call.traceparent, call.tracestate
                    )
                    hop = Hop(
                        self._upstream,
                        plan,
                        prompt,
                        deadline,
                        _limits(spec, plan, whole),
                        f"{completion_id}.0",
                    )
                    progress.hop = hop
                    buffers_calls = options.buffer_tool_arguments
                    fold = Fold() if whole or options.include_final_messages else None
                    async with aclosing(hop.batches()) as batches:
                        async for batch in batches:
                            if fold is not None:
                                fold.add(batch)
                            if progress.served is not hop.served:
                                batch = progress.begin(plan, hop, batch, options, head)
                                if record.time_to_first_token_s is None:
                                    record.time_to_first_token_s = loop.time() - started_s
                            if buffers_calls:
                                batch = [e for e in batch if not e.HasField("tool_call_delta")]
                            if not whole:
                                yield batch
                    # settle
                    progress.usage = _usage(spec, hop)
                    completion = _completion(
                        completion_id,
                        call.request_id,
                        created_s,
                        spec,
                        hop,
                        progress,
                        fold,
                        loop.time() - started_s,
                    )
                    completed = CompleteResponse(completed=StreamCompleted(completion=completion))
                    last = [completed]
                    if options.include_usage_updates:
                        last.insert(
                            0, CompleteResponse(usage_update=UsageUpdate(usage=progress.usage))
                        )
                    record.reason = "OK"
                    yield last
                except asyncio.CancelledError:
                    if (expulsion := ticket.expulsion()) is not None:
                        raise expulsion from None
                    if call.timeout_s is not None and loop.time() - started_s >= call.timeout_s:
                        # The gRPC library ends a call that is out of time by cancelling it, sometimes before we do.
                        record.reason = DeadlineExceeded.reason
                    raise
        except TrunklineError as error:
            record.reason = error.reason
            if progress.served is not None and not whole:
                yield [_interrupted(spec, progress)]
            raise
        except Exception:
            record.reason = "INTERNAL_ERROR"
            if progress.served is not None and not whole:
                yield [_interrupted(spec, progress)]
            raise
        finally:
            self._settle(record, progress, spec, loop.time())

    def _settle(
        self, record: RequestRecord, progress: Progress, spec: CompletionSpec, now_s: float
    ) -> None:
        hop = progress.hop
        if hop is not None:
            record.attempts = hop.records
            if hop.shown:
                served = hop.served
                record.provider = served.candidate.provider
                record.routed_model = served.candidate.id
                record.response_model = served.facts.response_model
                usage = progress.usage if progress.usage.total_tokens else _usage(spec, hop)
                record.input_tokens = usage.input_tokens
                record.output_tokens = usage.output_tokens
                record.cached_input_tokens = usage.cached_input_tokens
        self._upstream.telemetry.record(record, now_s)


_UNARY: Final = StreamOptions()


def _refuse_idempotency(key: str, call: Call) -> None:
    if key and call.idempotency_key and key != call.idempotency_key:
        raise InvalidRequest("idempotency_key", "differs from the idempotency-key header")
    if (
        len(key) > MAX_IDEMPOTENCY_KEY_CHARS
        or len(call.idempotency_key) > MAX_IDEMPOTENCY_KEY_CHARS
    ):
        raise InvalidRequest("idempotency_key", f"at most {MAX_IDEMPOTENCY_KEY_CHARS} characters")
    if key or call.idempotency_key:
        # Ignoring it would be a broken promise: the caller counts on being charged once.
        raise NotSupported("idempotency keys are not served yet", field="idempotency_key")


def _deadline(call: Call, now_s: float, whole: bool) -> Deadline:
    limit_s = MAX_UNARY_S if whole else MAX_STREAM_S
    if call.timeout_s is not None:
        if call.timeout_s <= 0:
            raise DeadlineExceeded
        limit_s = min(limit_s, call.timeout_s)
    return Deadline(now_s + limit_s)


def _streams(spec: CompletionSpec, plan: Plan, whole: bool) -> bool:
    """A unary caller who limits silence, or may be hedged, can be served only by watching the upstream's stream."""
    if not whole or plan.hedges:
        return True
    constraints = spec.constraints
    return constraints.HasField("first_token_timeout") or constraints.HasField("idle_timeout")


def _limits(spec: CompletionSpec, plan: Plan, whole: bool) -> Limits:
    refuses = spec.unsupported_policy == UnsupportedPolicy.UNSUPPORTED_POLICY_REJECT
    if not spec.HasField("constraints"):
        return Limits(whole=whole, recovery=plan.recovery, refuses_drops=refuses)
    constraints = spec.constraints
    first, idle = constraints.first_token_timeout, constraints.idle_timeout
    return Limits(
        max_attempts=constraints.max_attempts
        if constraints.HasField("max_attempts")
        else DEFAULT_MAX_ATTEMPTS,
        first_token_timeout_s=(first.seconds + first.nanos / 1e9) or None,
        idle_timeout_s=(idle.seconds + idle.nanos / 1e9) or None,
        whole=whole,
        recovery=constraints.recovery or plan.recovery,
        refuses_drops=refuses,
    )


def _started(completion_id: str, request_id: str, created_s: float) -> CompleteResponse:
    started = StreamStarted(completion_id=completion_id, request_id=request_id)
    started.create_time.seconds = int(created_s)
    started.create_time.nanos = int(created_s % 1 * 1e9)
    return CompleteResponse(started=started)


def _route(plan: Plan, hop: Hop) -> Route:
    candidate = hop.served.candidate
    failures = hop.failover_count
    if failures:
        reason = RouteReason.ROUTE_REASON_FAILOVER
    elif plan.scores:
        reason = RouteReason.ROUTE_REASON_SCORED
    else:
        reason = RouteReason.ROUTE_REASON_REQUESTED
    return Route(
        provider=candidate.provider,
        model=candidate.id,
        route=plan.route,
        requested_model=plan.requested_model,
        resolved_mode=plan.resolved_mode,
        label=candidate.label,
        attempt=failures + 1,
        failover_count=failures,
        total_failover_count=failures,
        reason=reason,
    )


def _usage(spec: CompletionSpec, hop: Hop) -> Usage:
    """What all attempts together used that gave the caller content."""
    total = _usage_of(spec, hop.served)
    for attempt in hop.shown[:-1]:
        add(total, _usage_of(spec, attempt))
    return total


def _usage_of(spec: CompletionSpec, attempt: Try) -> Usage:
    """The upstream's counts, or ours where it sent none, and what they cost."""
    reported = attempt.facts.usage
    usage = Usage()
    if reported is not None:
        usage.CopyFrom(reported)
    else:
        usage.input_tokens = _estimated_input_tokens(spec)
        usage.output_tokens = -(-attempt.output_chars // CHARS_PER_TOKEN)
        usage.total_tokens = usage.input_tokens + usage.output_tokens
        usage.estimated = True
    cost = price(usage, attempt.candidate.price)
    if cost is not None:
        usage.cost.CopyFrom(cost)
    return usage


def _estimated_input_tokens(spec: CompletionSpec) -> int:
    chars = len(spec.system_prompt)
    for message in spec.messages:
        for part in message.parts:
            chars += len(part.text) + len(part.tool_call.arguments_json)
            chars += sum(len(inner.text) for inner in part.tool_result.parts)
    return -(-chars // CHARS_PER_TOKEN)


def _completion(
    completion_id: str,
    request_id: str,
    created_s: float,
    spec: CompletionSpec,
    hop: Hop,
    progress: Progress,
    fold: Fold | None,
    total_s: float,
) -> Completion:
    served = hop.served
    facts = served.facts
    completion = Completion(
        id=completion_id,
        request_id=request_id,
        choices=ended(facts.finishes),
        route=progress.route,
        usage=progress.usage,
        attempts=hop.attempts,
        warnings=[*facts.warnings, *hop.continued],
        metadata_json=spec.metadata_json,
        system_fingerprint=facts.system_fingerprint,
        service_tier=facts.service_tier,
    )
    if fold is not None:
        fold.fill(completion.choices)
    completion.create_time.seconds = int(created_s)
    completion.create_time.nanos = int(created_s % 1 * 1e9)
    timing = completion.timing
    set_duration(timing.total, total_s)
    first = hop.shown[0]
    if first.first_token_s is not None:
        set_duration(timing.time_to_first_token, first.first_token_s)
    kind = spec.response_format.WhichOneof("format") if spec.HasField("response_format") else None
    if (
        kind in ("json_object", "json_schema")
        and completion.choices
        and completion.choices[0].message.parts
    ):
        text = "".join(part.text for part in completion.choices[0].message.parts)
        completion.structured_output.CopyFrom(StructuredOutput(type=kind, data_json=text))
    return completion


def _interrupted(spec: CompletionSpec, progress: Progress) -> CompleteResponse:
    hop = progress.hop
    event = StreamInterruptedEvent(route=progress.route)
    if hop is not None:
        progress.usage = _usage(spec, hop)
        event.usage.CopyFrom(progress.usage)
        event.attempts.extend(hop.attempts)
    return CompleteResponse(interrupted=event)


def _row(plan: Plan, candidate: Candidate, reason: str) -> RouteCandidate:
    row = RouteCandidate(
        provider=candidate.provider,
        model=candidate.id,
        eligible=not reason,
        exclusion_reason=reason,
    )
    score = plan.scores.get(candidate.key)
    if score is not None:
        row.score, row.accuracy, row.latency, row.cost = (
            score.total,
            score.accuracy,
            score.latency,
            score.cost,
        )
    return row
