"""Answers that are read to their end although their callers have left."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from tests.support.scripted import (
    QuietTelemetry,
    ScriptedAnswer,
    ScriptedProviders,
    cut,
    ended,
    text,
    upstream_over,
)
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.completion.attempts import Hop, Limits
from trunkline_server.completion.pump import MAX_ANSWERS, Pump
from trunkline_server.core.candidate import Candidate, Plan
from trunkline_server.core.deadline import Deadline
from trunkline_server.core.ports import Prompt

A = Candidate("a", "m", "m", drain_on_disconnect=True)
LIMIT_S = 5.0


async def until_told(telemetry: QuietTelemetry, count: int = 1) -> None:
    """Wait until so many answers have ended."""
    async with asyncio.timeout(LIMIT_S):
        while len(telemetry.drains) < count:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.005)


async def leave_early(candidate: Candidate, telemetry: QuietTelemetry) -> ScriptedAnswer:
    """A caller who leaves after the first event."""
    providers = ScriptedProviders(a=[[text("x"), 0.02, text("y"), ended()]])
    hop = Hop(
        upstream_over(providers, telemetry),
        Plan("m", "", "", (candidate,)),
        Prompt(CompletionSpec(), stream=True),
        Deadline(asyncio.get_running_loop().time() + 30),
        Limits(),
        "hop",
    )
    async with aclosing(hop.batches()) as batches:
        await anext(batches)
    return providers.answers[0]


async def test_an_answer_that_is_billed_as_a_whole_is_read_as_a_whole():
    telemetry = QuietTelemetry()

    answer = await leave_early(A, telemetry)

    assert not answer.is_closed
    await until_told(telemetry)
    assert (answer.is_complete, answer.is_closed) == (True, True)


async def test_any_other_answer_is_broken_off_at_once():
    telemetry = QuietTelemetry()

    answer = await leave_early(replace(A, drain_on_disconnect=False), telemetry)

    assert (answer.is_complete, answer.is_closed) == (False, True)
    assert telemetry.drains == []


@pytest.mark.parametrize("end", [cut(), 60.0], ids=["is lost", "stays silent"])
async def test_one_that_does_not_end_well_ends_all_the_same(end):
    telemetry = QuietTelemetry()
    pump = Pump(telemetry)
    answer = ScriptedAnswer([text("x"), end, ended()])

    pump.adopt("r", replace(A, idle_timeout_s=0.05), answer)

    await until_told(telemetry)
    assert answer.is_closed


async def test_there_is_room_for_so_many_and_closing_ends_them():
    telemetry = QuietTelemetry()
    pump = Pump(telemetry)
    answers = [ScriptedAnswer([60.0, ended()]) for _ in range(MAX_ANSWERS)]

    assert all(pump.adopt("r", A, answer) for answer in answers)
    assert not pump.adopt("r", A, ScriptedAnswer([ended()]))
    await asyncio.sleep(0)
    await pump.close()

    assert all(answer.is_closed for answer in answers)
    assert len(telemetry.drains) == MAX_ANSWERS
