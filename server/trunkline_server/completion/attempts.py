"""The attempt loop: candidates in order, until one has answered. The one place that retries anything.

A hop is one model turn. Until the first content of a hop, failure means another attempt and the caller sees nothing.
After it, a stream that breaks is interrupted. A unary caller sees nothing before the end, so for it every failure comes
before content.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Final

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import Attempt, FinishReason
from trunkline_server.completion.circuits import Circuits
from trunkline_server.core.attempts import attempt_message
from trunkline_server.core.candidate import Candidate, Plan
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import (
    AllProvidersFailed,
    AllProvidersThrottled,
    CapabilityUnsupported,
    ContentBlocked,
    ContextLengthExceeded,
    DeadlineExceeded,
    ProvidersUnavailable,
    StreamInterrupted,
    TrunklineError,
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
)
from trunkline_server.core.failure import CONSEQUENCES, Failure
from trunkline_server.core.ports import (
    Answer,
    AttemptFacts,
    AttemptRecord,
    Prompt,
    Providers,
    Telemetry,
    Unencodable,
)

DEFAULT_MAX_ATTEMPTS: Final = 3
MAX_ATTEMPTS: Final = 5
BACKOFF_BASE_S: Final = 0.25
BACKOFF_MAX_S: Final = 4.0
THROTTLE_WAIT_S: Final = 2.0
CLOCK_S: Final = 0.005  # A timer may fire a little early.
THROTTLE_WAIT_SHARE: Final = 0.2  # Of the time that is left.

Batch = list[CompleteResponse]


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the loop works with. One for the process."""

    providers: Providers
    circuits: Circuits
    telemetry: Telemetry
    random: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request. None: the candidate's own.

    Attributes:
        whole: the caller sees nothing before the end, so an answer that breaks off is tried again.
        refuses_drops: a candidate that can't honour an option is passed over.
    """

    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    first_token_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    whole: bool = False
    refuses_drops: bool = False


@dataclass(slots=True)
class Try:
    """One attempt under way."""

    candidate: Candidate
    started_s: float
    started_unix_s: float
    first_token_s: float | None = None
    facts: AttemptFacts = field(default_factory=AttemptFacts)
    output_chars: int = 0


class Hop:
    """One model turn, with all its attempts. Iterate `batches`; the rest is known when content has come."""

    def __init__(
        self,
        upstream: Upstream,
        plan: Plan,
        prompt: Prompt,
        deadline: Deadline,
        limits: Limits,
        hop_id: str,
    ) -> None:
        self.upstream = upstream
        self.plan = plan
        self.prompt = prompt
        self.deadline = deadline
        self.limits = limits
        self.hop_id = hop_id
        self.attempts: list[Attempt] = []
        self.records: list[AttemptRecord] = []
        self.current: Try | None = None
        self.refused: Unencodable | None = None
        self._loop = asyncio.get_running_loop()
        self._failures: list[UpstreamError] = []
        self._retries: dict[str, int] = {}
        self._tried: set[str] = set()

    @property
    def served(self) -> Try:
        """The attempt that gives the answer; only once content has come."""
        assert self.current is not None
        return self.current

    @property
    def failover_count(self) -> int:
        """Failed attempts so far."""
        return len(self._failures)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """The events of the answer, batch by batch. Nothing comes before content.

        Raises:
            RequestError, ServiceError: nobody answered; StreamInterrupted: the answer broke off.
        """
        candidate: Candidate | None = self._first()
        while candidate is not None:
            attempt = self._begin(candidate)
            answer: Answer | None = None
            failure: UpstreamError | None = None
            is_settled = False
            try:
                try:
                    answer, batch = await self._until_content(attempt)
                except UpstreamError as error:
                    is_settled = True
                    failure = error
                    self._failed(attempt, error)
                except Unencodable as error:
                    is_settled = True
                    self._end(attempt, Failure.DEADLINE)
                    self.refused = error
                else:
                    # From here on the caller sees content: there is no way back.
                    yield batch
                    idle_s = self.limits.idle_timeout_s or candidate.idle_timeout_s
                    deadline_s = self.deadline.at_s
                    clock = self._loop.time
                    while not answer.is_complete:
                        until_s = clock() + idle_s
                        try:
                            batch = await answer.read(min(deadline_s, until_s))
                        except (UpstreamError, TimeoutError) as error:
                            is_settled = True
                            raise self._interrupted(attempt, answer, error) from error
                        if batch:
                            yield batch
                    is_settled = True
                    self._succeeded(attempt, answer)
                    return
            finally:
                # Left early: cancelled, or the reader went away. That says nothing about the candidate.
                if not is_settled:
                    self._end(attempt, Failure.DEADLINE)
                if answer is not None:
                    attempt.output_chars = answer.output_chars
                    answer.close()
            candidate = await self._next(attempt, failure)
        raise self._verdict()

    # choosing

    def _first(self) -> Candidate | None:
        return self._pick(self.plan.candidates)

    def _pick(self, candidates: tuple[Candidate, ...]) -> Candidate | None:
        now_s = self._loop.time()
        circuits = self.upstream.circuits
        for candidate in candidates:
            if circuits.allows(candidate, now_s):
                return candidate
        if self._failures or not candidates:
            return None
        return circuits.least_bad(candidates, now_s)

    async def _next(self, last: Try, error: UpstreamError | None) -> Candidate | None:
        """Who is asked after a failure; None when that was the end of it."""
        self._tried.add(last.candidate.key)
        now_s = self._loop.time()
        circuits = self.upstream.circuits
        rest = tuple(
            c
            for c in self.plan.candidates
            if c.key not in self._tried and circuits.allows(c, now_s)
        )
        if error is None:  # The candidate could not express the request: that was no attempt.
            return self._pick(rest)
        consequence = CONSEQUENCES[error.failure]
        if len(self._failures) >= self.limits.max_attempts:
            return None
        if not self.deadline.allows_another(now_s):
            return None
        is_due = consequence.retries and not (consequence.needs_last and rest)
        if is_due and await self._may_retry(last.candidate, error, consequence.retries):
            return last.candidate
        if not consequence.fails_over:
            return None
        return self._pick(rest)

    async def _may_retry(self, candidate: Candidate, error: UpstreamError, retries: int) -> bool:
        done = self._retries.get(candidate.key, 0)
        if done >= retries:
            return False
        now_s = self._loop.time()
        wait_s = 0.0
        if error.failure is Failure.THROTTLED:
            remaining_s = self.deadline.remaining_s(now_s)
            wait_s = error.retry_after_s if error.retry_after_s is not None else THROTTLE_WAIT_S + 1
            if wait_s > min(THROTTLE_WAIT_S, THROTTLE_WAIT_SHARE * remaining_s):
                return False
        elif error.failure is Failure.SERVER:
            if error.retry_after_s:
                return False  # It told us to stay away.
            wait_s = self.upstream.random() * min(BACKOFF_BASE_S * 2**done, BACKOFF_MAX_S)
        if not self.upstream.circuits.budget(candidate).spend(now_s):
            return False
        self._retries[candidate.key] = done + 1
        if wait_s:
            await asyncio.sleep(wait_s + CLOCK_S)
        # Its breaker may have opened by the very failure, or by another request's in the meantime.
        return self.upstream.circuits.allows(candidate, self._loop.time())

    # one attempt

    def _begin(self, candidate: Candidate) -> Try:
        now_s = self._loop.time()
        circuits = self.upstream.circuits
        circuits.begin(candidate, now_s)
        if candidate.key not in self._retries:
            circuits.budget(candidate).earn(now_s)
        self.current = Try(candidate, now_s, time.time())
        return self.current

    async def _until_content(self, attempt: Try) -> tuple[Answer, Batch]:
        """Open the attempt and read until there is something to show: first content, or all of it for a unary caller.

        Raises:
            UpstreamError, Unencodable.
        """
        answer: Answer | None = None
        try:
            until_s = self._patience(attempt)
            if self.limits.refuses_drops:
                # Before anything is sent: an answer that is thrown away would be paid for all the same.
                self._refuse_drops(attempt.candidate)
            answer = await self.upstream.providers.open(attempt.candidate, self.prompt, until_s)
            attempt.facts = answer.facts
            batch: Batch = []
            idle_s = self.limits.idle_timeout_s or attempt.candidate.idle_timeout_s
            while not answer.is_complete:
                events = await answer.read(until_s)
                if events and attempt.first_token_s is None:
                    attempt.first_token_s = self._loop.time() - attempt.started_s
                batch += events
                if batch and not self.limits.whole and self._holds_content(batch):
                    break
                # From the first sign of life it is the gap that counts, but hidden reasoning never shortens the wait.
                gap_s = min(self._loop.time() + idle_s, self.deadline.at_s)
                until_s = gap_s if batch else max(until_s, gap_s)
            self._refuse_nothing(answer, batch)
            return answer, batch
        except TimeoutError as error:
            self._close(answer)
            if self.deadline.remaining_s(self._loop.time()) <= 0.05:
                raise UpstreamError(Failure.DEADLINE, "the caller's deadline passed") from error
            raise UpstreamError(Failure.SLOW, "no content in time") from error
        except BaseException:
            self._close(answer)
            raise

    def _refuse_drops(self, candidate: Candidate) -> None:
        for warning in self.upstream.providers.warnings(candidate, self.prompt):
            raise Unencodable(warning.field, warning.message)

    def _patience(self, attempt: Try) -> float:
        now_s = attempt.started_s
        left = self.limits.max_attempts - len(self._failures)
        if left > 1:
            circuits = self.upstream.circuits
            still = [c for c in self.plan.candidates if c.key not in self._tried]
            left = min(
                left, sum(1 for c in still if c is attempt.candidate or circuits.allows(c, now_s))
            )
        timeout_s = self.limits.first_token_timeout_s or attempt.candidate.first_token_timeout_s
        if not self.prompt.stream:
            # A whole answer takes as long as it takes: only the deadline and the candidates still to come bound it.
            timeout_s = self.deadline.remaining_s(now_s)
        return self.deadline.first_token_by_s(now_s, left, timeout_s)

    def _holds_content(self, batch: Batch) -> bool:
        return any(event.WhichOneof("event") in _CONTENT for event in batch)

    def _refuse_nothing(self, answer: Answer, batch: Batch) -> None:
        """An answer without content and without tokens is no answer."""
        if not answer.is_complete or self._holds_content(batch) or answer.output_chars:
            return
        usage = answer.facts.usage
        if usage is not None and usage.output_tokens:
            return
        # A filter, a refusal or a limit says why there is nothing: that is an answer, and asking the next provider the
        # same would be shopping around.
        if any(finished.finish_reason not in _SILENT for finished in answer.facts.finishes):
            return
        raise UpstreamError(
            Failure.PROTOCOL, "an answer without content", http_status=answer.facts.http_status
        )

    def _close(self, answer: Answer | None) -> None:
        if answer is not None:
            answer.close()

    # outcomes

    def _succeeded(self, attempt: Try, answer: Answer) -> None:
        attempt.output_chars = answer.output_chars
        self._end(attempt, None)
        self._record(attempt, None)

    def _failed(self, attempt: Try, error: UpstreamError) -> None:
        self._end(attempt, error.failure, error.retry_after_s)
        self._failures.append(error)
        self._record(attempt, error)
        self.upstream.telemetry.attempt_failed(self.hop_id, attempt.candidate, error)

    def _interrupted(
        self, attempt: Try, answer: Answer, error: UpstreamError | TimeoutError
    ) -> TrunklineError:
        attempt.output_chars = answer.output_chars
        if isinstance(error, TimeoutError):
            if self.deadline.remaining_s(self._loop.time()) <= 0.05:
                error = UpstreamError(Failure.DEADLINE, "the caller's deadline passed")
                self._failed(attempt, error)
                return DeadlineExceeded(attempts=self.attempts)
            error = UpstreamError(Failure.INTERRUPTED, "silence in the middle of the stream")
        elif error.failure is Failure.AMBIGUOUS:
            error.failure = Failure.INTERRUPTED
        self._failed(attempt, error)
        return StreamInterrupted(attempts=self.attempts, provider=attempt.candidate.provider)

    def _end(
        self, attempt: Try, failure: Failure | None, retry_after_s: float | None = None
    ) -> None:
        self.upstream.circuits.end(
            attempt.candidate, self._loop.time(), attempt.started_s, failure, retry_after_s
        )

    def _record(self, attempt: Try, error: UpstreamError | None) -> None:
        duration_s = self._loop.time() - attempt.started_s
        facts = attempt.facts
        self.records.append(
            AttemptRecord(
                attempt.candidate,
                error.failure.name if error else "",
                error.http_status if error else facts.http_status,
                duration_s,
            )
        )
        self.attempts.append(
            attempt_message(
                attempt_id=f"{self.hop_id}-{len(self.attempts) + 1}",
                candidate=attempt.candidate,
                hop=0,
                started_unix_s=attempt.started_unix_s,
                duration_s=duration_s,
                first_token_s=attempt.first_token_s,
                error=error,
                http_status=error.http_status if error else facts.http_status,
                upstream_request_id=error.upstream_request_id
                if error
                else facts.upstream_request_id,
            )
        )

    def _nobody_asked(self) -> TrunklineError:
        waiting = [c for c in self.plan.candidates if c.key not in self._tried]
        if self.refused is not None and not waiting:
            return CapabilityUnsupported(self.refused.field, self.refused.message)
        now_s = self._loop.time()
        circuits = self.upstream.circuits
        wait_s = max(1.0, circuits.shortest_wait_s(waiting, now_s))
        if circuits.all_cool(waiting, now_s):
            return AllProvidersThrottled(retry_after_s=wait_s)
        return ProvidersUnavailable(retry_after_s=wait_s)

    def _verdict(self) -> TrunklineError:
        """What the caller is told when nobody answered."""
        failures = self._failures
        kinds = {error.failure for error in failures}
        if not failures:
            return self._nobody_asked()
        last = failures[-1]
        if Failure.DEADLINE in kinds or self.deadline.remaining_s(self._loop.time()) <= 0:
            return DeadlineExceeded(attempts=self.attempts)
        provider = self.records[-1].candidate.provider
        if last.failure is Failure.POLICY:
            return ContentBlocked(provider=provider)
        if last.failure is Failure.CALLER:
            return UpstreamRejected(provider=provider)
        if kinds <= {Failure.CONTEXT_LENGTH}:
            return ContextLengthExceeded(provider=provider)
        if all(CONSEQUENCES[kind].blames_request for kind in kinds):
            return UpstreamRejected(provider=provider)
        if kinds <= {Failure.THROTTLED}:
            waits = [error.retry_after_s for error in failures if error.retry_after_s is not None]
            return AllProvidersThrottled(
                retry_after_s=max(min(waits, default=1.0), 0.0), attempts=self.attempts
            )
        if kinds <= {Failure.SLOW}:
            return UpstreamTimeout(attempts=self.attempts)
        return AllProvidersFailed(attempts=self.attempts)


# Ends that promise content.
_SILENT: Final = frozenset(
    {
        FinishReason.FINISH_REASON_STOP,
        FinishReason.FINISH_REASON_STOP_SEQUENCE,
        FinishReason.FINISH_REASON_TOOL_CALLS,
        FinishReason.FINISH_REASON_OTHER,
    }
)
_CONTENT: Final = frozenset(
    {
        "text_delta",
        "reasoning_delta",
        "refusal_delta",
        "tool_call_delta",
        "part_completed",
        "artifact",
    }
)
