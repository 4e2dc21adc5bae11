"""An answer that is cut at any byte: whole, or told to be broken once, or given by the next provider. Never spliced."""

import asyncio

import pytest

from tests.faults.callers import STREAMS, Patience, callers
from tests.faults.cuts import CUT, ENDS, Place, ended
from tests.faults.fleet import fleet, route
from tests.faults.kinds import FAULTY
from tests.faults.tables import Tables
from tests.faults.upstreams import Ask, layout
from tests.faults.wires import WIRES, Wire

TITLE = "Answers cut at every byte"
COLUMNS = ("dialect, way, cut", "cuts", "whole", "one error", "from the next")
AT_ONCE = 48


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
    answer = layout(Ask(wire, Place(0, end, 0).mark, is_stream, ""), FAULTY)
    first, last, size = answer.first, answer.finish, len(answer.data)
    offsets = sorted({*range(0, size, step), first - 1, first, last, size - 1, size})
    counts = dict.fromkeys(("whole", "error", "next"), 0)
    turns = asyncio.Semaphore(AT_ONCE)

    # The next candidate is of another dialect.
    wires = (wire.name, "gemini" if wire.name == "openai" else "openai")
    async with (
        fleet(CUT, models=len(offsets), wires=wires) as found,
        callers(found.service) as asking,
    ):

        async def one(number: int, offset: int) -> None:
            mark = Place(offset, end, number).mark
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
                assert ending == "error" or (end == "rst" and ending == "next")
            elif offset < last:
                assert ending == "next"

        async with asyncio.TaskGroup() as group:
            for number, offset in enumerate(offsets):
                group.create_task(one(number, offset))

    cells = (len(offsets), counts["whole"], counts["error"], counts["next"])
    tables.table(TITLE, COLUMNS).add(f"{wire.name}, {way}, {end.upper()}", *cells)
