"""An answer that is cut at any byte: whole, or told to be broken once, or given by the next provider. Never spliced."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.faults.callers import STREAMS, Outcome, Patience, callers
from tests.faults.fleet import fleet, route
from tests.faults.kinds import FAULTY, HEALTHY, Kind
from tests.faults.proxy import Ending, Fault, Fin
from tests.faults.tables import Tables
from tests.faults.upstreams import Ask, layout
from tests.faults.wires import WIRES, Wire, said
from tests.support.upstream import Reset

TITLE = "Answers cut at every byte"
COLUMNS = ("dialect, way, cut", "cuts", "whole", "one error", "from the next")
AT_ONCE = 48
ENDS: Mapping[str, Ending] = {"FIN": Fin(), "RST": Reset()}


@dataclass(frozen=True)
class Place:
    """Where a mark says to cut."""

    offset: int
    end: str

    @staticmethod
    def of(mark: str) -> "Place":
        _, offset, end, _ = mark.split("-")
        return Place(int(offset), end.upper())


def cut(ask: Ask) -> Fault:
    """At the place that the prompt names."""
    place = Place.of(ask.mark)
    return Fault(place.offset, ENDS[place.end])


CUT = Kind("cut", reasons=frozenset({"any"}), network=cut)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", ["gRPC stream", "SSE", "gRPC unary", "REST unary"])
@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
@pytest.mark.parametrize(
    "step", [pytest.param(97, id="short"), pytest.param(1, id="long", marks=pytest.mark.slow)]
)
async def test_a_cut_is_never_taken_for_an_end(
    wire: Wire, way: str, end: str, step: int, tables: Tables
):
    # A caller who limits silence is served from a stream of the provider, though it gets one whole answer.
    patience = Patience(30.0, 30.0) if way == "gRPC unary" else Patience()
    is_stream = way != "REST unary"
    answer = layout(Ask(wire, mark_of(0, end, wire), is_stream, ""), FAULTY)
    first, last, size = answer.first, answer.finish, len(answer.data)
    offsets = sorted({*range(0, size, step), first - 1, first, last, size - 1, size})
    counts = dict.fromkeys(("whole", "error", "next"), 0)
    turns = asyncio.Semaphore(AT_ONCE)

    async with fleet(CUT, len(offsets)) as found, callers(found.service) as asking:

        async def one(number: int, offset: int) -> None:
            mark = mark_of(offset, end, wire)
            async with turns:
                outcome = await asking.ask(way, route(wire.name, number), f"say {mark}", patience)
            ending = ended(mark, way, outcome)
            counts[ending] += 1
            if offset == size:
                assert ending == "whole"
            elif offset < first and is_stream:
                assert ending == "next"
            elif offset < last and way in STREAMS:
                # A reset may overtake what was sent before it: then nobody saw content.
                assert ending == "error" or (end == "RST" and ending == "next")
            elif offset < last:
                assert ending == "next"

        async with asyncio.TaskGroup() as group:
            for number, offset in enumerate(offsets):
                group.create_task(one(number, offset))

    cells = (len(offsets), counts["whole"], counts["error"], counts["next"])
    tables.table(TITLE, COLUMNS).add(f"{wire.name}, {way}, {end}", *cells)


def mark_of(offset: int, end: str, wire: Wire) -> str:
    """Of one length for all places, so that all answers are of one length too."""
    return f"mark-{offset:06d}-{end.lower()}-{wire.name}"


def ended(mark: str, way: str, outcome: Outcome) -> str:
    """How, provided that it was in one of the ways that are right."""
    ours, next_ones = said(mark, FAULTY), said(mark, HEALTHY)
    context = (mark, way, outcome)
    if outcome.errors:
        assert outcome.errors == ("STREAM_INTERRUPTED",), context
        assert outcome.ends == 0, context
        assert way in STREAMS, context
        assert outcome.text, context
        assert ours.startswith(outcome.text), context
        return "error"
    assert outcome.ends == 1, context
    if outcome.text == ours:
        assert [reason for _, reason in outcome.attempts] == [""], context
        return "whole"
    assert outcome.text == next_ones, context
    assert outcome.attempts[-1][0].startswith(HEALTHY), context
    return "next"
