"""The attempt loop: candidates in order, until one has answered. The one place that retries anything.

A hop is one model turn. Until its first content, failure means another attempt and the caller sees nothing. After it,
`Recovery` decides. A unary caller sees nothing before the end, so for it an answer that breaks off simply starts again.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from trunkline.v1.completion_event_pb2 import CompleteResponse, StreamReset
from trunkline.v1.completion_pb2 import Attempt, CompletionWarning, FinishReason
from trunkline.v1.completion_spec_pb2 import Recovery
from trunkline_server.completion.circuits import Circuits, Permit
from trunkline_server.completion.pump import Pump
from trunkline_server.completion.recovery import (
    Said,
    continuation,
    continued_warning,
    is_state,
    may_continue,
    prefills,
)
from trunkline_server.completion.verdict import MAX_NAMED, verdict
from trunkline_server.core.attempts import attempt_message
from trunkline_server.core.candidate import Candidate, Plan
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import (
    AllProvidersThrottled,
    CapabilityUnsupported,
    DeadlineExceeded,
    ProvidersUnavailable,
    StreamInterrupted,
    TrunklineError,
    UpstreamError,
)
from trunkline_server.core.failure import CONSEQUENCES, Failure
from trunkline_server.core.ports import (
    Answer,
    AttemptFacts,
    AttemptRecord,
    Experience,
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
LATE_S: Final = 0.05  # So close to its end, a deadline has passed.
THROTTLE_WAIT_SHARE: Final = 0.2  # Of the time that is left.

RESTART: Final = Recovery.RECOVERY_RESTART
CONTINUE: Final = Recovery.RECOVERY_CONTINUE

Batch = list[CompleteResponse]


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the loop works with. One for the process."""

    providers: Providers
    circuits: Circuits
    telemetry: Telemetry
    pump: Pump
    experience: Experience
    random: Callable[[], float]


@dataclass(slots=True)
class Limits:
    """Of one request. None: the candidate's own.

    Attributes:
        whole: the caller sees nothing before the end.
        recovery: what becomes of an answer that broke off after content, for a caller who has seen it.
        refuses_drops: a candidate that can't honour an option is passed over.
    """

    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    first_token_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    whole: bool = False
    recovery: "Recovery.ValueType" = Recovery.RECOVERY_TERMINATE
    refuses_drops: bool = False


@dataclass(slots=True, eq=False)
class Try:
    """One attempt under way.

    Attributes:
        opening: what came first, from the first content on; None until there is content.
        error: how it failed.
        heard_s: when it last gave a sign of life before content.
        is_open: no outcome has been reported yet.
        is_whole: the answer came to its end.
        output_chars: characters of content, shown or not; known when the attempt was left.
        message: what the caller is told of it, once it has ended.
    """

    candidate: Candidate
    permit: Permit
    started_s: float
    started_unix_s: float
    is_hedge: bool = False
    first_token_s: float | None = None
    heard_s: float | None = None
    facts: AttemptFacts = field(default_factory=AttemptFacts)
    answer: Answer | None = None
    opening: Batch | None = None
    error: UpstreamError | None = None
    is_open: bool = True
    is_whole: bool = False
    output_chars: int = 0
    message: Attempt | None = None


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
        number: int = 0,
        is_paid_for: "Callable[[Hop], Awaitable[bool]] | None" = None,
    ) -> None:
        """Args: is_paid_for: may another attempt take over from one that is paid for? Asked before it begins."""
        self.upstream = upstream
        self.plan = plan
        self.prompt = prompt
        self.deadline = deadline
        self.limits = limits
        self.hop_id = hop_id
        self.number = number
        self._is_paid_for = is_paid_for
        self.attempts: list[Attempt] = []
        self.records: list[AttemptRecord] = []
        self.begun: list[Try] = []
        self.shown: list[
            Try
        ] = []  # Those whose content the caller has, or had: in order, the last one serves.
        self.continued: list[CompletionWarning] = []
        self._loop = asyncio.get_running_loop()
        self._failures: list[UpstreamError] = []
        self._refused: Unencodable | None = None
        self._retries: dict[str, int] = {}
        self._tried: set[str] = set()
        self._barred: set[str] = (
            set()
        )  # Providers that refused our credential, or have no more for it.
        self._interruption: TrunklineError | None = None
        self._broken_off: Attempt | None = None
        self._abandoned: list[Try] | None = None
        continues = limits.recovery == CONTINUE and not limits.whole
        self._said = Said() if continues and may_continue(prompt.spec) else None

    @property
    def served(self) -> Try:
        """The attempt that gives the answer; only once content has come."""
        return self.shown[-1]

    @property
    def billed(self) -> list[Try]:
        """Attempts that are paid for: whose content the caller got. A unary caller gets that of a whole one alone."""
        if self._abandoned is not None:
            return self._abandoned
        if not self.limits.whole:
            return self.shown[::-1]
        # One that broke off has given nothing to who waits for the whole.
        return [attempt for attempt in self.shown[-1:] if attempt.error is None]

    def abandon(self) -> None:
        """Nobody wants this turn any more: end at once what is open. Only what had begun to answer is paid for."""
        if self._abandoned is None:
            self._abandoned = []
        for attempt in self.begun:
            if attempt.is_open:
                if attempt.answer is not None:
                    self._abandoned.append(attempt)
                self._outrun(attempt)
                self._leave(attempt)

    @property
    def _is_continued(self) -> bool:
        """Does whoever is asked now take up what another one began?"""
        return self._said is not None and bool(self.shown)

    @property
    def failover_count(self) -> int:
        """Failed attempts so far."""
        return len(self._failures)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """The events of the answer, batch by batch. Nothing comes before content.

        A `StreamReset` comes first in a batch: what came before it is void.

        Raises:
            RequestError, ServiceError: nobody answered; StreamInterrupted: the answer broke off.
        """
        candidate = self._pick(self.plan.candidates)
        while candidate is not None:
            attempt = await self._ask(candidate)
            if attempt.opening is not None:
                assert attempt.answer is not None
                answer = attempt.answer
                try:
                    yield self._opening(attempt)
                    idle_s = self.limits.idle_timeout_s or attempt.candidate.idle_timeout_s
                    deadline_s = self.deadline.at_s
                    clock = self._loop.time
                    said = self._said
                    while not answer.is_complete:
                        now_s = clock()
                        try:
                            if now_s >= deadline_s:  # By a caller who takes its time to read.
                                raise TimeoutError
                            batch = await answer.read(min(deadline_s, now_s + idle_s))
                        except (UpstreamError, TimeoutError) as error:
                            self._interrupted(attempt, error)
                            break
                        if said is not None:
                            batch = said.pass_on(batch)
                        if batch:
                            yield batch
                    else:
                        self._succeeded(attempt)
                        return
                finally:
                    self._leave(attempt)
                if not self._recovers() or not await self._is_paid_again():
                    break
            candidate = await self._next(attempt)
        raise self._interruption or self._nobody_answered()

    # choosing

    def _pick(self, candidates: tuple[Candidate, ...]) -> Candidate | None:
        now_s = self._loop.time()
        circuits = self.upstream.circuits
        candidate = circuits.choose(candidates, now_s)
        if candidate is None and not self._failures:
            candidate = circuits.least_bad(candidates, now_s)
        return candidate

    async def _next(self, last: Try) -> Candidate | None:
        """Who is asked after a failure; None when that was the end of it."""
        self._tried.add(last.candidate.key)
        untried = tuple(c for c in self.plan.candidates if c.key not in self._tried)
        error = last.error
        if error is not None and error.failure in _OF_THE_CREDENTIAL:
            self._barred.add(last.candidate.provider)
        if self._barred:  # Their other models have the same key, and are asked last.
            untried = tuple(sorted(untried, key=lambda c: c.provider in self._barred))
        if error is None:  # The candidate could not express the request: that was no attempt.
            return self._pick(untried)
        now_s = self._loop.time()
        circuits = self.upstream.circuits
        rest = tuple(c for c in untried if circuits.allows(c, now_s))
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
        health = self.upstream.circuits.health(candidate)
        if not health.throttle.allows or not health.budget.spend(now_s):
            return False
        self._retries[candidate.key] = done + 1
        if wait_s:
            await asyncio.sleep(wait_s + CLOCK_S)
        now_s = self._loop.time()
        # Its breaker may have opened by the very failure, or by another request's in the meantime.
        return health.allows(now_s) and self.deadline.allows_another(now_s)

    # asking

    async def _ask(self, candidate: Candidate) -> Try:
        """One attempt, or two at once: until one has content, or all have failed."""
        attempt = self._begin(candidate)
        if self.plan.hedges and self.prompt.stream:
            return await self._ask_two(attempt)
        await self._until_content(attempt)
        return attempt

    async def _ask_two(self, first: Try) -> Try:
        """Ask another provider as well when the first stays silent. Whoever has content first serves; the other ends.

        Returns the one that serves, else the one that failed last.
        """
        allowance = self.upstream.circuits.hedges(self.plan.route)
        if not self._failures:
            allowance.earn()
        health = self.upstream.circuits.health(first.candidate)
        tries = [first]
        tasks = {self._loop.create_task(self._until_content(first)): first}
        is_over = False
        try:
            _, silent = await asyncio.wait(tasks, timeout=health.first_tokens.hedge_delay_s)
            second = self._hedge(first) if silent else None
            if second is not None:
                tries.append(second)
                tasks[self._loop.create_task(self._until_content(second))] = second
            last = await self._first_with_content(tasks, first)
            for task, loser in tasks.items():
                task.cancel()
                self._outrun(loser)
                self._leave(loser)
            if tasks:
                await asyncio.wait(tasks)
            is_over = True
            return last
        finally:
            # At once, before anything is waited for: whoever is cancelled here may be cancelled again.
            if not is_over:
                for task in tasks:
                    task.cancel()
                for attempt in tries:
                    self._leave(attempt)
                if tasks:
                    await asyncio.wait(tasks)

    async def _first_with_content(self, tasks: dict[asyncio.Task[None], Try], first: Try) -> Try:
        """The one that has content, or the last one to fail. Those that still run are left in `tasks`."""
        last = first
        while tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                last = tasks[task]
                task.result()
                del tasks[task]
                if last.opening is not None:
                    return last
                self._tried.add(last.candidate.key)
        return last

    def _hedge(self, first: Try) -> Try | None:
        """A second attempt, at another provider, if all agree to it."""
        now_s = self._loop.time()
        circuits = self.upstream.circuits
        allowance = circuits.hedges(self.plan.route)
        if not allowance.allows or len(self._failures) + 1 >= self.limits.max_attempts:
            return None
        if not self.deadline.allows_another(now_s) or any(a.is_hedge for a in self.begun):
            return None
        others = tuple(
            c
            for c in self.plan.candidates
            if c.provider not in (first.candidate.provider, *self._barred)
            and c.key not in self._tried
            and circuits.health(c).throttle.allows
        )
        candidate = circuits.choose(others, now_s)
        if candidate is None or not circuits.health(candidate).budget.spend(now_s):
            return None
        allowance.spend()
        self.upstream.telemetry.hedged(self.plan.route, candidate)
        return self._begin(candidate, is_hedge=True)

    def _begin(self, candidate: Candidate, *, is_hedge: bool = False) -> Try:
        now_s = self._loop.time()
        is_first = candidate.key not in self._retries and not is_hedge
        permit = self.upstream.circuits.begin(candidate, now_s, is_first=is_first)
        attempt = Try(candidate, permit, now_s, time.time(), is_hedge)
        self.begun.append(attempt)
        return attempt

    async def _until_content(self, attempt: Try) -> None:
        """Open the attempt and read until there is content, or the answer has ended without.

        Its outcome is in the attempt: `opening`, or `error`, or neither where the candidate can't express the request.
        """
        try:
            attempt.opening = await self._open(attempt)
        except UpstreamError as error:
            if error.failure is Failure.CALLER and self._is_continued:
                # It is our own addition that may be refused: the next one can perhaps take it.
                error.failure = Failure.CAPABILITY
            self._failed(attempt, error)
        except TimeoutError:
            self._failed(attempt, self._late() or self._silence(attempt))
        except Unencodable as error:
            self._refused = error
        finally:
            # Left early, or not an attempt at all: that says nothing about the candidate.
            if attempt.opening is None:
                self._leave(attempt)

    async def _open(self, attempt: Try) -> Batch:
        candidate, prompt = attempt.candidate, self.prompt
        until_s = self._patience(attempt)
        if self.limits.refuses_drops:
            # Before anything is sent: an answer that is thrown away would be paid for all the same.
            for warning in self.upstream.providers.warnings(candidate, prompt):
                raise Unencodable(warning.field, warning.message)
        if self._said is not None and self._is_continued:
            prompt = continuation(prompt, self._said.text, candidate)
        answer = await self.upstream.providers.open(candidate, prompt, until_s)
        attempt.answer, attempt.facts = answer, answer.facts
        if prompt.unasked:
            warnings = attempt.facts.warnings
            warnings[:] = [w for w in warnings if w.field not in prompt.unasked]
        batch: Batch = []
        idle_s = self.limits.idle_timeout_s or candidate.idle_timeout_s
        while not answer.is_complete:
            events = await answer.read(until_s)
            attempt.heard_s = self._loop.time()
            if events and attempt.first_token_s is None:
                attempt.first_token_s = attempt.heard_s - attempt.started_s
            batch += events
            if batch and self._holds_content(batch):
                return batch
            # From the first sign of life it is the gap that counts, but hidden reasoning never shortens the wait.
            gap_s = min(attempt.heard_s + idle_s, self.deadline.at_s)
            until_s = gap_s if batch else max(until_s, gap_s)
        # A candidate that continues its own turn may find nothing left to say, and its usage tells that it looked.
        is_enough = self._is_continued and prefills(candidate, prompt.spec) and answer.facts.usage
        if not is_enough:
            self._refuse_nothing(answer, batch)
        return batch

    def _patience(self, attempt: Try) -> float:
        now_s = attempt.started_s
        left = self.limits.max_attempts - len(self._failures)
        if len(self.plan.candidates) == 1:
            left = 1
        elif left > 1:
            circuits = self.upstream.circuits
            still = [c for c in self.plan.candidates if c.key not in self._tried]
            left = min(
                left, sum(1 for c in still if c is attempt.candidate or circuits.allows(c, now_s))
            )
        candidate = attempt.candidate
        timeout_s = self.limits.first_token_timeout_s
        if timeout_s is None:
            timeout_s = self._first_token_timeout_s(candidate)
        if not self.prompt.stream:
            # A whole answer takes as long as it takes: only the deadline and the candidates still to come bound it.
            timeout_s = self.deadline.remaining_s(now_s)
        return self.deadline.first_token_by_s(now_s, left, timeout_s)

    def _first_token_timeout_s(self, candidate: Candidate) -> float:
        """The candidate's own."""
        if self.plan.resolved_mode == "fast":
            return candidate.fast_first_token_timeout_s
        return candidate.first_token_timeout_s

    def _silence(self, attempt: Try) -> UpstreamError:
        """What a timer that went off before content means, if the caller's time was not up."""
        candidate = attempt.candidate
        if attempt.heard_s is None:
            since_s, own_s = attempt.started_s, self._first_token_timeout_s(candidate)
        else:
            since_s, own_s = attempt.heard_s, candidate.idle_timeout_s
        health = self.upstream.circuits.health(candidate)
        tells = health.is_telling(self._loop.time() - since_s, own_s, whole=not self.prompt.stream)
        return UpstreamError(Failure.SLOW, "no content in time", is_neutral=not tells)

    def _holds_content(self, batch: Batch) -> bool:
        for event in batch:
            kind = event.WhichOneof("event")
            if kind in _CONTENT and not (
                kind == "part_completed" and is_state(event.part_completed.part)
            ):
                return True
        return False

    def _refuse_nothing(self, answer: Answer, batch: Batch) -> None:
        """An answer without content and without tokens is no answer."""
        if self._holds_content(batch) or answer.output_chars:
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

    # showing

    def _opening(self, attempt: Try) -> Batch:
        """The first batch of an attempt, as the caller gets it."""
        batch = attempt.opening or []
        is_again = bool(self.shown)
        self.shown.append(attempt)
        attempt.permit.begin_answer()
        said = self._said
        if said is not None:
            if is_again:
                said.join(attempt.candidate, self.prompt.spec)
                self.continued.append(continued_warning(attempt.candidate))
            batch = said.pass_on(batch)
        elif is_again:
            reset = StreamReset(hop=self.number, failed_attempt=self._broken_off)
            batch = [CompleteResponse(stream_reset=reset), *batch]
        return batch

    def _recovers(self) -> bool:
        """May another attempt take over from the one that broke off?"""
        if self.limits.whole:
            return True
        if self._failures[-1].failure is Failure.DEADLINE:
            return False
        if self._said is not None:
            return self._said.is_plain
        return self.limits.recovery == RESTART and len(self.shown) == 1

    async def _is_paid_again(self) -> bool:
        """Is there a hold for one more answer? Who waits for the whole pays for one, however many have begun."""
        if self._is_paid_for is None or self.limits.whole:
            return True
        return await self._is_paid_for(self)

    # outcomes

    def _succeeded(self, attempt: Try) -> None:
        attempt.is_open = False
        attempt.is_whole = True
        now_s = self._loop.time()
        whole = not self.prompt.stream
        first_token_s = None if whole else attempt.first_token_s
        attempt.permit.succeed(now_s, first_token_s)
        usage = attempt.facts.usage
        self.upstream.experience.ended(
            attempt.candidate,
            now_s,
            whole=whole,
            latency_s=now_s - attempt.started_s if whole else first_token_s,
            failed=False,
            output_tokens=usage.output_tokens if usage is not None else 0,
        )
        self._record(attempt)

    def _failed(self, attempt: Try, error: UpstreamError) -> None:
        attempt.is_open = False
        attempt.error = error
        now_s = self._loop.time()
        attempt.permit.fail(
            now_s,
            error.failure,
            error.retry_after_s,
            error.http_status,
            is_neutral=error.is_neutral,
        )
        if error.failure in _OURS or error.is_neutral:
            self._gave_up(attempt, now_s)
        elif not CONSEQUENCES[error.failure].blames_request:
            self.upstream.experience.ended(
                attempt.candidate,
                now_s,
                whole=not self.prompt.stream,
                latency_s=now_s - attempt.started_s,
                failed=True,
            )
        self._failures.append(error)
        self._record(attempt)
        self.upstream.telemetry.attempt_failed(self.hop_id, attempt.candidate, error)

    def _gave_up(self, attempt: Try, now_s: float) -> None:
        """Nobody waits for it any more: that tells of its time, unless its answer has begun."""
        if attempt.opening is None:
            self.upstream.experience.gave_up(
                attempt.candidate,
                now_s,
                whole=not self.prompt.stream,
                waited_s=now_s - attempt.started_s,
            )

    def _interrupted(self, attempt: Try, error: UpstreamError | TimeoutError) -> None:
        """An answer broke off after content."""
        if isinstance(error, TimeoutError):
            failure = Failure.SLOW if self.limits.whole else Failure.INTERRUPTED
            own_s = attempt.candidate.idle_timeout_s
            health = self.upstream.circuits.health(attempt.candidate)
            tells = health.is_telling(self.limits.idle_timeout_s or own_s, own_s, whole=False)
            error = self._late() or UpstreamError(
                failure, "silence in the middle of the stream", is_neutral=not tells
            )
        elif error.failure in (Failure.AMBIGUOUS, Failure.SLOW) and not self.limits.whole:
            error.failure = Failure.INTERRUPTED
        self._failed(attempt, error)
        self._broken_off = self.attempts[-1]
        if not self.limits.whole:
            self._interruption = (
                DeadlineExceeded(attempts=self.attempts)
                if error.failure is Failure.DEADLINE
                else StreamInterrupted(attempts=self.attempts, provider=attempt.candidate.provider)
            )

    def _late(self) -> UpstreamError | None:
        """What a timer that went off means if it was the caller's time that was up."""
        if self.deadline.remaining_s(self._loop.time()) > LATE_S:
            return None
        return UpstreamError(Failure.DEADLINE, "the caller's deadline passed")

    def _outrun(self, attempt: Try) -> None:
        """An attempt ends because another one answered first."""
        if attempt.is_open:
            attempt.error = UpstreamError(Failure.OUTRUN, "another attempt answered first")
            self._record(attempt)

    def _leave(self, attempt: Try) -> None:
        """Close what is left of an attempt. One without an outcome was left early, which says nothing about anybody."""
        answer, attempt.answer = attempt.answer, None
        if answer is not None:
            attempt.output_chars = answer.output_chars
        if attempt.is_open:
            attempt.is_open = False
            attempt.permit.leave()
            self._gave_up(attempt, self._loop.time())
            if (
                answer is not None
                and attempt.candidate.drain_on_disconnect
                and self.upstream.pump.adopt(self.hop_id, attempt.candidate, answer)
            ):
                return
        if answer is not None:
            answer.close()

    def _record(self, attempt: Try) -> None:
        duration_s = self._loop.time() - attempt.started_s
        facts, error = attempt.facts, attempt.error
        http_status = error.http_status if error else facts.http_status
        self.records.append(
            AttemptRecord(
                attempt.candidate, error.failure.name if error else "", http_status, duration_s
            )
        )
        message = attempt_message(
            attempt_id=f"{self.hop_id}-{len(self.attempts) + 1}",
            candidate=attempt.candidate,
            hop=self.number,
            started_unix_s=attempt.started_unix_s,
            duration_s=duration_s,
            first_token_s=attempt.first_token_s,
            error=error,
            http_status=http_status,
            upstream_request_id=error.upstream_request_id if error else facts.upstream_request_id,
        )
        if attempt.is_hedge:
            message.hedge = True
        attempt.message = message
        self.attempts.append(message)

    def _nobody_answered(self) -> TrunklineError:
        if self._failures:
            is_late = self.deadline.remaining_s(self._loop.time()) <= 0
            provider = self.records[-1].candidate.provider
            left = [c.key for c in self.plan.candidates if c.key not in self._tried]
            return verdict(self._failures, self.attempts, provider, is_late, left)
        waiting = [c for c in self.plan.candidates if c.key not in self._tried]
        if self._refused is not None and not waiting:
            return CapabilityUnsupported(self._refused.field, self._refused.message)
        now_s = self._loop.time()
        circuits = self.upstream.circuits
        wait_s = max(1.0, circuits.shortest_wait_s(waiting, now_s))
        if circuits.all_throttled(waiting, now_s):
            return AllProvidersThrottled(retry_after_s=wait_s)
        return ProvidersUnavailable([c.key for c in waiting[:MAX_NAMED]], retry_after_s=wait_s)


# Ends that the caller or this process chose.
_OURS: Final = frozenset({Failure.DEADLINE, Failure.OUTRUN})
# What holds for all models of a provider.
_OF_THE_CREDENTIAL: Final = frozenset({Failure.CREDENTIAL, Failure.EXHAUSTED})
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
