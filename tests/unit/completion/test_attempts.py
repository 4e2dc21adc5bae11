"""The attempt loop over a scripted port: who is asked, in which order, and what is said in the end."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from tests.support.scripted import ScriptedProviders, upstream_over
from trunkline.v1.completion_event_pb2 import CompleteResponse, TextDelta
from trunkline.v1.completion_pb2 import CompletionWarning, Usage
from trunkline.v1.completion_spec_pb2 import CompletionSpec, Recovery
from trunkline_server.completion.attempts import Hop, Limits
from trunkline_server.completion.circuits import Circuits
from trunkline_server.core.candidate import Candidate, Plan
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import (
    AllProvidersFailed,
    AllProvidersThrottled,
    CapabilityUnsupported,
    ContentBlocked,
    ContextLengthExceeded,
    DeadlineExceeded,
    StreamInterrupted,
    TrunklineError,
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
)
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import AttemptFacts, Prompt, RequestRecord, Unencodable

A, B, C = (Candidate(name, "m", "m") for name in "abc")
ALL = (A, B, C)
TEXT = CompleteResponse(text_delta=TextDelta(text="hi"))
UNABLE = Unencodable("spec.sampling.seed", "has none")
LOST = UpstreamError(Failure.AMBIGUOUS, "lost")

Outcome = UpstreamError | Unencodable | TimeoutError | str


class Said:
    """An answer that is read in one go, and may break off after it."""

    def __init__(self, then: UpstreamError | None) -> None:
        self.facts = AttemptFacts(http_status=200)
        self.output_chars = 2
        self.is_complete = False
        self.is_closed = False
        self._is_read = False
        self._then = then

    async def read(self, until_s: float) -> list[CompleteResponse]:
        if self._is_read and self._then is not None:
            raise self._then
        self._is_read = True
        self.is_complete = self._then is None
        return [TEXT]

    def close(self) -> None:
        self.is_closed = True


class Scripted:
    """The `Providers` port: each candidate does what is said of it, the last outcome again and again."""

    def __init__(self, **outcomes: Sequence[Outcome]) -> None:
        self.outcomes = {name: list(found) for name, found in outcomes.items()}
        self.opened: list[str] = []
        self.answers: list[Said] = []

    async def open(self, candidate: Candidate, prompt: Prompt, until_s: float) -> Said:
        self.opened.append(candidate.provider)
        left = self.outcomes[candidate.provider]
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, Exception):
            raise outcome
        self.answers.append(Said(LOST if outcome == "cut" else None))
        return self.answers[-1]

    def warnings(self, candidate: Candidate, prompt: Prompt) -> list[CompletionWarning]:
        return []


class Silent:
    """The `Telemetry` port."""

    def record(self, request: RequestRecord, now_s: float) -> None:
        """Not of interest here."""

    def attempt_failed(self, request_id: str, candidate: Candidate, error: UpstreamError) -> None:
        """Not of interest here."""

    def hedged(self, route: str, candidate: Candidate) -> None:
        """Not of interest here."""

    def drained(self, request_id: str, candidate: Candidate, usage: Usage | None) -> None:
        """Not of interest here."""


def failing(failure: Failure, retry_after_s: float | None = None) -> UpstreamError:
    """An attempt's end."""
    return UpstreamError(failure, "no", http_status=500, retry_after_s=retry_after_s)


async def run(
    providers: Scripted,
    candidates: tuple[Candidate, ...] = ALL,
    seconds: float = 60.0,
    circuits: Circuits | None = None,
    **limits: Any,
) -> TrunklineError | list[CompleteResponse]:
    """One hop: its events, or the error that it ended with."""
    hop = Hop(
        upstream_over(providers, Silent(), circuits),
        Plan("m", "", "", candidates),
        Prompt(CompletionSpec(), stream=True),
        Deadline(asyncio.get_running_loop().time() + seconds),
        Limits(**limits),
        "hop",
    )
    events: list[CompleteResponse] = []
    try:
        async with aclosing(hop.batches()) as batches:
            async for batch in batches:
                events += batch
    except TrunklineError as error:
        return error
    return events


RETRIED = {Failure.NOT_PROCESSED: ["a", "a", "b"]}


@pytest.mark.parametrize("failure", Failure)
async def test_a_failure_moves_on_retries_or_ends_as_its_row_says(failure):
    providers = Scripted(a=[failing(failure)], b=["hi"], c=["hi"])

    found = await run(providers)

    ends = failure in (Failure.CALLER, Failure.POLICY, Failure.DEADLINE, Failure.OUTRUN)
    assert providers.opened == (["a"] if ends else RETRIED.get(failure, ["a", "b"]))
    assert (found == [TEXT]) is not ends


@pytest.mark.parametrize(
    ("failure", "opened"),
    [
        (Failure.NOT_PROCESSED, ["a", "a"]),
        (Failure.SERVER, ["a", "a", "a"]),
        (Failure.THROTTLED, ["a"]),
        (Failure.AMBIGUOUS, ["a"]),
        (Failure.PROTOCOL, ["a"]),
        (Failure.SLOW, ["a"]),
        (Failure.EXHAUSTED, ["a"]),
        (Failure.CREDENTIAL, ["a"]),
    ],
)
async def test_the_only_candidate_is_asked_again_as_often_as_its_row_says(failure, opened):
    providers = Scripted(a=[failing(failure)])

    await run(providers, (A,), max_attempts=5)

    assert providers.opened == opened


@pytest.mark.parametrize(
    ("failure", "retry_after_s", "opened"),
    [
        (Failure.THROTTLED, 0.01, ["a", "a"]),
        (Failure.THROTTLED, 2.5, ["a"]),
        (Failure.SERVER, 1.0, ["a"]),
        (Failure.SERVER, 0.0, ["a", "a"]),
    ],
)
async def test_a_provider_that_says_when_is_asked_again_only_when_that_is_soon(
    failure, retry_after_s, opened
):
    providers = Scripted(a=[failing(failure, retry_after_s), "hi"])

    await run(providers, (A,))

    assert providers.opened == opened


async def test_no_more_attempts_are_made_than_allowed():
    providers = Scripted(a=[LOST], b=[LOST], c=["hi"])

    found = await run(providers, max_attempts=2)

    assert providers.opened == ["a", "b"]
    assert isinstance(found, AllProvidersFailed)


async def test_the_first_attempt_starts_however_little_time_is_left_and_no_other():
    providers = Scripted(a=[LOST], b=["hi"], c=["hi"])

    await run(providers, seconds=2.0)

    assert providers.opened == ["a"]


async def test_who_can_not_express_the_request_is_no_attempt_and_not_asked_again():
    providers = Scripted(a=[UNABLE], b=[UNABLE], c=["hi"])

    found = await run(providers, max_attempts=1)

    assert providers.opened == ["a", "b", "c"]
    assert found == [TEXT]


@pytest.mark.parametrize("failure", [Failure.SERVER, Failure.NOT_PROCESSED])
async def test_who_can_not_express_the_request_is_not_asked_again_for_anothers_failure(failure):
    providers = Scripted(a=[failing(failure)], b=[UNABLE])

    found = await run(providers, (A, B), max_attempts=5)

    assert providers.opened.count("b") == 1
    assert isinstance(found, AllProvidersFailed)


async def test_a_candidate_whose_breaker_is_open_is_passed_over():
    circuits = Circuits(lambda: 0.0)
    await run(Scripted(a=[failing(Failure.CREDENTIAL)], b=["hi"]), (A, B), circuits=circuits)
    providers = Scripted(a=["hi"], b=["hi"])

    await run(providers, (A, B), circuits=circuits)

    assert providers.opened == ["b"]


async def test_when_all_breakers_are_open_one_is_asked_all_the_same():
    circuits = Circuits(lambda: 0.0)
    await run(Scripted(a=[failing(Failure.CREDENTIAL)]), (A,), circuits=circuits)
    providers = Scripted(a=["hi"])

    found = await run(providers, (A,), circuits=circuits)

    assert providers.opened == ["a"]
    assert found == [TEXT]


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        (
            [failing(Failure.THROTTLED, 30.0), failing(Failure.THROTTLED, 20.0)],
            AllProvidersThrottled,
        ),
        ([failing(Failure.THROTTLED), failing(Failure.SERVER)], AllProvidersFailed),
        ([failing(Failure.SLOW), failing(Failure.SLOW)], UpstreamTimeout),
        ([TimeoutError(), TimeoutError()], UpstreamTimeout),
        ([failing(Failure.SLOW), failing(Failure.AMBIGUOUS)], AllProvidersFailed),
        ([failing(Failure.CALLER)], UpstreamRejected),
        ([failing(Failure.AMBIGUOUS), failing(Failure.CALLER)], UpstreamRejected),
        ([failing(Failure.POLICY)], ContentBlocked),
        ([failing(Failure.CONTEXT_LENGTH)] * 2, ContextLengthExceeded),
        ([failing(Failure.CONTEXT_LENGTH), failing(Failure.CAPABILITY)], UpstreamRejected),
        ([failing(Failure.CONTEXT_LENGTH), failing(Failure.AMBIGUOUS)], AllProvidersFailed),
        ([failing(Failure.DEADLINE)], DeadlineExceeded),
        ([UNABLE, UNABLE], CapabilityUnsupported),
        ([UNABLE, failing(Failure.PROTOCOL)], AllProvidersFailed),
        (["cut"], StreamInterrupted),
    ],
    ids=range(15),
)
async def test_what_the_caller_is_told_follows_from_all_failures(outcomes, kind):
    providers = Scripted(a=[outcomes[0]], b=[outcomes[-1]])

    found = await run(providers, (A, B), max_attempts=2)

    assert type(found) is kind


async def test_when_all_are_throttled_the_shortest_wait_is_told():
    outcomes = [failing(Failure.THROTTLED, 30.0), failing(Failure.THROTTLED, 20.0)]

    found = await run(Scripted(a=outcomes[:1], b=outcomes[1:]), (A, B))

    assert isinstance(found, AllProvidersThrottled)
    assert found.retry_after_s == 20.0


async def test_a_break_after_content_is_an_interruption_and_nobody_else_is_asked():
    providers = Scripted(a=["cut"], b=["hi"])

    found = await run(providers, (A, B))

    assert isinstance(found, StreamInterrupted)
    assert providers.opened == ["a"]
    assert [answer.is_closed for answer in providers.answers] == [True]


async def test_for_a_unary_caller_a_break_after_content_is_a_failure_like_any_other():
    providers = Scripted(a=["cut"], b=["hi"])

    found = await run(providers, (A, B), whole=True)

    assert isinstance(found, list)
    assert [event.WhichOneof("event") for event in found] == [
        "text_delta",
        "stream_reset",
        "text_delta",
    ]
    assert providers.opened == ["a", "b"]
    assert [answer.is_closed for answer in providers.answers] == [True, True]


async def test_retries_of_one_provider_end_with_its_budget():
    circuits = Circuits(lambda: 0.0)
    opened = 0
    for _ in range(10):
        providers = Scripted(a=[failing(Failure.NOT_PROCESSED), "hi"])
        await run(providers, (A,), circuits=circuits)
        opened += len(providers.opened)

    assert opened <= 1.2 * 10 + 3


SAME_KEY = Candidate("a", "m2", "m2")
ALSO_SAME_KEY = Candidate("a", "m3", "m3")


@pytest.mark.parametrize("failure", [Failure.CREDENTIAL, Failure.EXHAUSTED])
async def test_who_has_the_same_credential_is_asked_last_once_it_is_refused(failure):
    providers = Scripted(a=[failing(failure)], b=["hi"])

    found = await run(providers, (A, SAME_KEY, ALSO_SAME_KEY, B))

    assert found == [TEXT]
    assert providers.opened == ["a", "b"]


async def test_it_is_asked_last_after_one_who_can_not_express_the_request_too():
    providers = Scripted(a=[failing(Failure.CREDENTIAL)], b=[UNABLE], c=["hi"])

    await run(providers, (A, B, SAME_KEY, C))

    assert providers.opened == ["a", "b", "c"]


async def test_who_has_the_same_credential_is_asked_where_there_is_nobody_else():
    providers = Scripted(a=[failing(Failure.CREDENTIAL), "hi"])

    found = await run(providers, (A, SAME_KEY))

    assert found == [TEXT]


async def test_a_caller_in_a_hurry_is_no_reason_to_leave_a_candidate_alone():
    circuits = Circuits(lambda: 0.0)

    for _ in range(6):
        providers = Scripted(a=[TimeoutError()], b=[TimeoutError()])
        found = await run(providers, (A, B), circuits=circuits, first_token_timeout_s=0.05)
        assert isinstance(found, UpstreamTimeout)
        assert providers.opened == ["a", "b"]

    assert circuits.allows(A, asyncio.get_running_loop().time())
    assert circuits.health(A).concurrency.in_flight == 0


async def test_a_silence_as_long_as_its_own_limit_is_held_against_a_candidate():
    circuits = Circuits(lambda: 0.0)
    slow = Candidate("a", "m", "m", first_token_timeout_s=0.001)

    for _ in range(5):
        await run(Scripted(a=[TimeoutError()]), (slow,), circuits=circuits)

    assert not circuits.allows(slow, asyncio.get_running_loop().time())


@pytest.mark.parametrize(("own_s", "is_open"), [(60.0, False), (0.01, True)])
async def test_a_silence_after_content_counts_as_much_as_the_candidate_may_take(own_s, is_open):
    circuits = Circuits(lambda: 0.0)
    candidate = Candidate("a", "m", "m", idle_timeout_s=own_s)
    for _ in range(5):
        providers = ScriptedProviders(a=[[TEXT, 60.0]])
        hop = Hop(
            upstream_over(providers, Silent(), circuits),
            Plan("m", "", "", (candidate,)),
            Prompt(CompletionSpec(), stream=True),
            Deadline(asyncio.get_running_loop().time() + 60),
            Limits(idle_timeout_s=0.01),
            "hop",
        )
        with pytest.raises(StreamInterrupted):
            async for _ in hop.batches():
                pass

    assert circuits.allows(candidate, asyncio.get_running_loop().time()) is not is_open


async def test_the_deadline_holds_for_a_caller_who_takes_its_time_to_read():
    providers = ScriptedProviders(a=[[TEXT] * 1_000])
    loop = asyncio.get_running_loop()
    hop = Hop(
        upstream_over(providers, Silent()),
        Plan("m", "", "", (A,)),
        Prompt(CompletionSpec(), stream=True),
        Deadline(loop.time() + 60),
        Limits(),
        "hop",
    )
    batches = hop.batches()
    await anext(batches)
    hop.deadline.at_s = loop.time()  # It passes meanwhile. Its upstream has always more to give.

    with pytest.raises(DeadlineExceeded):
        await anext(batches)
    assert providers.answers[0].is_closed


@pytest.mark.parametrize("has_credits", [True, False])
async def test_an_answer_is_taken_up_only_where_the_next_one_is_paid_for(has_credits: bool):
    providers = Scripted(a=["cut"], b=["hi"])
    asked: list[Hop] = []

    async def is_paid_for(hop: Hop) -> bool:
        asked.append(hop)
        assert providers.opened == ["a"]
        return has_credits

    hop = Hop(
        upstream_over(providers, Silent()),
        Plan("m", "", "", ALL),
        Prompt(CompletionSpec(), stream=True),
        Deadline(asyncio.get_running_loop().time() + 60),
        Limits(recovery=Recovery.RECOVERY_RESTART),
        "hop",
        is_paid_for=is_paid_for,
    )
    error: TrunklineError | None = None
    try:
        async for _ in hop.batches():
            pass
    except StreamInterrupted as interrupted:
        error = interrupted

    assert asked == [hop]
    assert (error is None) is has_credits
    assert providers.opened == (["a", "b"] if has_credits else ["a"])


async def test_who_waits_for_the_whole_pays_for_nothing_that_broke_off():
    providers = ScriptedProviders(a=[[TEXT, LOST]], b=[[LOST]])
    hop = Hop(
        upstream_over(providers, Silent()),
        Plan("m", "", "", (A, B)),
        Prompt(CompletionSpec(), stream=True),
        Deadline(asyncio.get_running_loop().time() + 60),
        Limits(whole=True),
        "hop",
    )

    with pytest.raises(AllProvidersFailed):
        async for _ in hop.batches():
            pass

    assert hop.shown
    assert hop.billed == []
