"""A second provider beside a silent first one: when it is asked, who serves, and what becomes of the other."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from tests.support.scripted import (
    QuietTelemetry,
    ScriptedProviders,
    Step,
    cut,
    ended,
    text,
    upstream_over,
)
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.completion.attempts import Hop, Limits
from trunkline_server.completion.circuits import Circuits
from trunkline_server.core.candidate import Candidate, Plan
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.errors import TrunklineError
from trunkline_server.core.ports import Prompt

A, B = (Candidate(name, "m", "m") for name in "ab")
A2 = Candidate("a", "m2", "m2")
ROUTE = "r"
SILENT: list[Step] = [60.0, text("late"), ended()]
SLOW: list[Step] = [1.3, text("slow"), ended()]
QUICK: list[Step] = [text("quick"), ended()]
SLOW_FAILURE: list[Step] = [1.3, cut()]


class Bench:
    """What one test looks at."""

    def __init__(self, providers: ScriptedProviders, requests: int = 20) -> None:
        self.telemetry = QuietTelemetry()
        self.circuits = Circuits(lambda: 0.0)
        self.providers = providers
        for _ in range(requests):
            self.circuits.hedges(ROUTE).earn()
        for candidate in (A, A2, B):
            for _ in range(20):
                # First tokens have always come at once, so a hedge is due after the shortest delay, a second.
                self.circuits.health(candidate).first_tokens.add(0.01)

    def hop(self, *candidates: Candidate, **limits: Any) -> Hop:
        """One model turn on a route that hedges."""
        return Hop(
            upstream_over(self.providers, self.telemetry, self.circuits),
            Plan("m", ROUTE, "", candidates, hedges=True),
            Prompt(CompletionSpec(), stream=True),
            Deadline(asyncio.get_running_loop().time() + 30),
            Limits(**limits),
            "hop",
        )

    def is_idle(self) -> bool:
        """Has everybody been told how every attempt ended?"""
        return all(self.circuits.health(c).concurrency.in_flight == 0 for c in (A, A2, B)) and all(
            answer.is_closed for answer in self.providers.answers
        )


async def run(hop: Hop) -> list[CompleteResponse] | TrunklineError:
    """Its events, or its error."""
    events: list[CompleteResponse] = []
    try:
        async with aclosing(hop.batches()) as batches:
            async for batch in batches:
                events += batch
    except TrunklineError as error:
        return error
    return events


async def test_another_provider_is_asked_when_the_first_stays_silent_and_the_first_is_left():
    bench = Bench(ScriptedProviders(a=[SILENT], b=[QUICK]))
    hop = bench.hop(A, B)
    began_s = asyncio.get_running_loop().time()

    found = await run(hop)

    assert found == [text("quick"), ended()]
    assert 1.0 <= asyncio.get_running_loop().time() - began_s < 2.0
    assert bench.is_idle()
    assert bench.telemetry.hedges == [(ROUTE, "b")]
    assert [(a.provider, a.hedge, a.error.message) for a in hop.attempts] == [
        ("a", False, "another attempt answered"),
        ("b", True, ""),
    ]
    assert hop.failover_count == 0


async def test_the_first_may_still_win():
    bench = Bench(ScriptedProviders(a=[SLOW], b=[SILENT]))

    found = await run(bench.hop(A, B))

    assert found == [text("slow"), ended()]
    assert bench.providers.opened == ["a", "b"]
    assert bench.is_idle()


async def test_nobody_else_is_asked_when_the_first_answers_in_time():
    bench = Bench(ScriptedProviders(a=[QUICK], b=[QUICK]))

    await run(bench.hop(A, B))

    assert bench.providers.opened == ["a"]


async def test_a_failure_before_the_delay_is_an_ordinary_failover():
    bench = Bench(ScriptedProviders(a=[[cut()]], b=[QUICK]))

    found = await run(bench.hop(A, B))

    assert found == [text("quick"), ended()]
    assert bench.telemetry.hedges == []


async def test_when_the_hedge_fails_the_first_goes_on():
    bench = Bench(ScriptedProviders(a=[SLOW], b=[[cut()]]))

    found = await run(bench.hop(A, B))

    assert found == [text("slow"), ended()]
    assert bench.is_idle()


async def test_when_both_fail_both_count():
    bench = Bench(ScriptedProviders(a=[[1.3, cut()]], b=[[cut()]]))
    hop = bench.hop(A, B)

    found = await run(hop)

    assert isinstance(found, TrunklineError)
    assert hop.failover_count == 2
    assert bench.is_idle()


@pytest.mark.parametrize(
    ("candidates", "requests", "limits"),
    [
        ((A, A2), 20, {}),
        ((A, B), 18, {}),
        ((A, B), 20, {"max_attempts": 1}),
    ],
    ids=["the same provider", "no hedge is left", "one attempt is all"],
)
async def test_nobody_else_is_asked_where(candidates, requests, limits):
    bench = Bench(ScriptedProviders(a=[SLOW], b=[QUICK]), requests)

    found = await run(bench.hop(*candidates, **limits))

    assert found == [text("slow"), ended()]
    assert bench.telemetry.hedges == []


async def test_a_candidate_that_mostly_fails_is_no_hedge():
    bench = Bench(ScriptedProviders(a=[SLOW], b=[QUICK]))
    for _ in range(5):
        bench.circuits.health(B).throttle.fail()

    await run(bench.hop(A, B))

    assert bench.providers.opened == ["a"]


async def test_a_caller_who_leaves_while_two_are_asked_leaves_nothing_behind():
    bench = Bench(ScriptedProviders(a=[SILENT], b=[SILENT]))
    task = asyncio.create_task(run(bench.hop(A, B)))
    async with asyncio.timeout(5):
        while len(bench.providers.answers) < 2:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.01)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert bench.is_idle()


@pytest.mark.parametrize("ticks", range(8))
async def test_a_caller_who_leaves_just_as_a_hedge_wins_leaves_nothing_behind(ticks):
    bench = Bench(ScriptedProviders(a=[SILENT], b=[[0.05, text("quick"), 60.0, ended()]]))
    task = asyncio.create_task(run(bench.hop(A, B)))
    async with asyncio.timeout(5):
        while sum(a.output_chars for a in bench.providers.answers) == 0:  # noqa: ASYNC110 - a number
            await asyncio.sleep(0)
    for _ in range(ticks):
        await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert bench.is_idle()


async def test_a_request_is_hedged_once_however_often_it_fails_over():
    bench = Bench(ScriptedProviders(a=[SLOW_FAILURE], b=[SLOW_FAILURE]), requests=100)
    hop = bench.hop(A, B, A2, max_attempts=5)

    await run(hop)

    assert len(bench.telemetry.hedges) == 1


async def test_nobody_is_asked_as_well_when_too_little_time_is_left_for_an_attempt():
    bench = Bench(ScriptedProviders(a=[SILENT], b=[QUICK]))
    hop = bench.hop(A, B)
    hop.deadline = Deadline(asyncio.get_running_loop().time() + 3.0)

    found = await run(hop)

    # The first is given its share, and the second what is left.
    assert bench.telemetry.hedges == []
    assert isinstance(found, TrunklineError)
    assert bench.is_idle()
