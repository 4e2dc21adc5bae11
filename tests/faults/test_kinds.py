"""Each kind of fault, at the first of two providers: before content nobody sees it, after content it is told once."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faults.callers import STREAMS, Callers, Outcome, Patience, callers
from tests.faults.fleet import Fleet, fleet, route
from tests.faults.kinds import FAULTY, HEALTHY, KINDS, Kind
from tests.faults.tables import Table, Tables
from tests.faults.wires import WIRES, said

NAMES = tuple(kind.name for kind in KINDS)
COLUMNS = (
    "kind of fault",
    "requests",
    "complete",
    "one error",
    "met it",
    "one model: requests",
    "complete",
    "one error",
    "met it",
)
WHOLE_S = 0.5
LONG = 1000
# Seven of ten are gRPC streams; the others share the rest.
WAYS = ("gRPC stream", "gRPC unary", "SSE", "REST unary", *["gRPC stream"] * 6)


@dataclass
class Tally:
    """What came of a number of requests."""

    requests: int = 0
    complete: int = 0
    errors: int = 0
    met: int = 0
    texts: set[str] = field(default_factory=set)

    def cells(self) -> tuple[int, ...]:
        return self.requests, self.complete, self.errors, self.met


@pytest.fixture
def rows(tables: Tables, request: pytest.FixtureRequest) -> Table:
    """Whoever runs all kinds must get a row for each; whoever picks some, for these."""
    given = [_parameters(item) for item in request.session.items]
    kinds = [found["kind"] for found in given if "kind" in found]
    chosen = {kind.name for kind in kinds if isinstance(kind, Kind)}
    return tables.table(
        f"Kinds of fault, two providers, {len(WIRES)} dialects",
        COLUMNS,
        [name for name in NAMES if name in chosen],
    )


def _parameters(item: pytest.Item) -> Mapping[str, Any]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}


@pytest.mark.parametrize(
    "count", [pytest.param(30, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, id=kind.name) for kind in KINDS],
)
async def test_a_fault_is_hidden_before_content_and_told_once_after_it(
    kind: Kind, count: int, rows: Table
):
    each, together = Tally(), Tally()
    try:
        async with fleet(kind, models=count + 1) as found, callers(found.service) as asking:
            wires = [*WIRES]
            await _ask_all(found, asking, kind, wires, range(count), each, at_once=64)
            if (
                count < LONG
            ):  # Few requests open breakers of few dialects: a kind has two of them, by its name.
                wires = [wires[(len(kind.name) + n) % len(wires)] for n in range(2)]
            await _ask_all(found, asking, kind, wires, [count] * count, together, at_once=8)
    finally:
        rows.add(kind.name, *each.cells(), *together.cells())

    for tally in (each, together):
        assert tally.complete + tally.errors == tally.requests == count
        assert len(tally.texts) == tally.complete, "two requests got one text"
    assert each.met == count
    if not kind.after_content:
        assert each.errors == together.errors == 0


async def _ask_all(
    found: Fleet,
    asking: Callers,
    kind: Kind,
    wires: Sequence[str],
    models: Sequence[int],
    tally: Tally,
    *,
    at_once: int,
) -> None:
    """A request for each of `models`."""
    for upstream in found.broken.values():
        upstream.asks.clear()
    turns = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        wire = wires[number % len(wires)]
        way = WAYS[number // len(wires) % len(WAYS)]
        mark = f"mark-{number}-{kind.name.encode().hex()[:24]}"
        patience = Patience() if way in STREAMS else _patience(kind)
        async with turns:
            outcome = await asking.ask(way, route(wire, models[number]), f"say {mark}", patience)
        _check(kind, way, mark, outcome, tally)

    async with asyncio.TaskGroup() as group:
        for number in range(len(models)):
            group.create_task(one(number))
    seen = {name: len(upstream.asks) for name, upstream in found.broken.items()}
    if kind.gets_requests:
        # What the gateway says it did is what the faulty upstreams saw. Patience may be over before a request is read.
        assert sum(seen.values()) == tally.met or (
            kind.patience_s and sum(seen.values()) < tally.met
        )


def _patience(kind: Kind) -> Patience:
    """Of a caller who waits for a whole answer, which no provider's settings bound. It holds for the next one too."""
    if kind.patience_s is None:
        return Patience()
    waits_s = max(kind.patience_s, WHOLE_S)
    return Patience(30.0, waits_s) if kind.after_content else Patience(waits_s, 30.0)


def _check(kind: Kind, way: str, mark: str, outcome: Outcome, tally: Tally) -> None:
    tally.requests += 1
    failed = [reason for provider, reason in outcome.attempts if provider.startswith(FAULTY)]
    tally.met += bool(failed)
    context = (kind.name, way, mark, outcome)
    if outcome.errors:
        assert kind.after_content, context
        assert way in STREAMS, context
        assert outcome.ends == 0, context
        assert outcome.errors == ("STREAM_INTERRUPTED",), context
        assert outcome.text, context
        assert said(mark, FAULTY).startswith(outcome.text), context
        tally.errors += 1
        tally.met += not failed  # SSE tells no attempts with an error.
        assert set(failed) <= kind.reasons, context
        return
    assert outcome.ends == 1, context
    answered = FAULTY if failed == [""] else HEALTHY
    assert _hash(outcome.text) == _hash(said(mark, answered)), context
    if answered == HEALTHY:
        assert set(failed) <= kind.reasons, context
        assert outcome.attempts[-1][0].startswith(HEALTHY), context
        assert outcome.attempts[-1][1] == "", context
    else:
        assert not kind.reasons, context
    assert min(outcome.tokens) >= 0, context
    tally.texts.add(outcome.text)
    tally.complete += 1


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_every_kind_is_in_the_table_once():
    assert [name for name, times in Counter(NAMES).items() if times > 1] == []
