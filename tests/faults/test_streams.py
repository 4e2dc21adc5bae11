"""Ten thousand streams, all faults at once: before content none is seen, after it each is told exactly once."""

import asyncio
import dataclasses
import hashlib
from collections import Counter
from random import Random

import pytest

from tests.faults.callers import STREAMS, Outcome, callers
from tests.faults.cuts import CUT, ENDINGS, Place, ended
from tests.faults.fleet import fleet, route
from tests.faults.kinds import FAULTY, HEALTHY, KINDS
from tests.faults.tables import Tables
from tests.faults.upstreams import Ask, layout
from tests.faults.wires import WIRES, said

BEFORE = tuple(kind for kind in KINDS if kind.reasons and not kind.after_content)
LATE = dataclasses.replace(CUT, patience_s=1.0)
AT_ONCE = 64
BATCH = 2_000  # Streams of one service.
counts = pytest.mark.parametrize(
    "count",
    [pytest.param(276, id="short"), pytest.param(10_000, id="long", marks=pytest.mark.slow)],
)


@counts
async def test_no_fault_before_content_is_seen(count: int, tables: Tables):
    whole, visible, lost, doubled = Counter[str](), 0, 0, 0
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        for mark, outcome in await _before(range(start, start + size)):
            visible += len(outcome.errors) or outcome.ends != 1
            right = said(mark, HEALTHY)
            if _hash(outcome.text) != _hash(right):
                lost += max(0, len(right) - len(outcome.text))
                doubled += max(0, len(outcome.text) - len(right)) or len(outcome.text) == len(right)
            whole[outcome.text] += 1

    tables.table(
        "Streams with a fault before content, and a healthy candidate",
        ("", "streams", "kinds", "met it", "visible errors", "characters lost", "doubled"),
    ).add("all kinds at once", count, len(BEFORE), count, visible, lost, doubled)
    assert (visible, lost, doubled) == (0, 0, 0)
    assert len(whole) == count, "two streams got one text"


async def _before(numbers: range) -> list[tuple[str, Outcome]]:
    """A stream for each number: kinds, dialects and edges take turns. Every one of them meets its fault."""
    wires = list(WIRES)
    found: list[tuple[str, Outcome]] = []
    turns = asyncio.Semaphore(AT_ONCE)
    per_wire = -(-len(numbers) // len(wires))
    async with fleet(*BEFORE, models=per_wire) as running, callers(running.service) as asking:

        async def one(number: int) -> None:
            position = number - numbers.start
            wire, model = wires[position % len(wires)], position // len(wires)
            kind = BEFORE[model % len(BEFORE)]
            way = STREAMS[model // len(BEFORE) % len(STREAMS)]
            mark = f"mark-{number}-before"
            async with turns:
                outcome = await asking.ask(way, route(wire, model), f"say {mark}")
            reasons = {r for name, r in outcome.attempts if name.startswith(FAULTY)}
            assert reasons, (kind.name, way, outcome)
            assert reasons <= kind.reasons, (kind.name, way, outcome)
            found.append((mark, outcome))

        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(one(number))
    return found


@counts
async def test_a_stream_cut_after_content_ends_exactly_once(count: int, tables: Tables):
    random = Random(3)
    endings, overtaken, terminals = Counter[str](), 0, Counter[int]()
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        for place, way, outcome in await _after(range(start, start + size), random):
            terminals[outcome.ends + len(outcome.errors)] += 1
            endings[place.ending] += 1
            how = ended(place.mark, way, outcome)
            assert how != "whole", (place, outcome)
            if how == "next":
                assert place.ending == "rst", (
                    place,
                    outcome,
                )  # It overtook what was sent before it.
                overtaken += 1

    tables.table(
        "Streams cut after content, at a byte and in a way of chance",
        ("", "streams", *ENDINGS, "one terminal event", "none or several", "seen by nobody"),
    ).add(
        "cut after content",
        count,
        *(endings[name] for name in ENDINGS),
        terminals[1],
        count - terminals[1],
        overtaken,
    )
    assert terminals == {1: count}


async def _after(numbers: range, random: Random) -> list[tuple[Place, str, Outcome]]:
    wires = list(WIRES.values())
    found: list[tuple[Place, str, Outcome]] = []
    turns = asyncio.Semaphore(AT_ONCE)
    per_wire = -(-len(numbers) // len(wires))
    async with fleet(LATE, models=per_wire) as running, callers(running.service) as asking:

        async def one(number: int) -> None:
            position = number - numbers.start
            wire, model = wires[position % len(wires)], position // len(wires)
            ending = random.choice(list(ENDINGS))
            answer = layout(Ask(wire, Place(0, ending, number).mark, True, ""), FAULTY)
            # At the very last bytes before the finish a trickle would still bring it in time.
            place = Place(random.randrange(answer.first, answer.finish - 3), ending, number)
            way = random.choice(STREAMS)
            async with turns:
                outcome = await asking.ask(way, route(wire.name, model), f"say {place.mark}")
            found.append((place, way, outcome))

        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(one(number))
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
