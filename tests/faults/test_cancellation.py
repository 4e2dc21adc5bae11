"""A caller who goes away: the provider is left at once, in every phase and over every edge. Nothing stays behind."""

import asyncio
import gc
import math
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Final

import pytest

from tests.faults.callers import STREAMS, WAYS, Callers, callers, chat, spec
from tests.faults.tables import Tables
from tests.faults.upstreams import Ask, FaultyUpstream, Step, faulty, head_of
from tests.faults.waiting import WAIT_S, until
from tests.faults.wires import ENVIRONMENT, WIRES, Wire, said
from tests.support.service import model, service
from tests.support.upstream import Hang, Pause, chunk
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest
from trunkline_server.app import Service

TITLE: Final = "From a caller's cancel to the provider's closed connection, in ms"
COLUMNS: Final = ("phase, way", "cancels", "open at first", "p50", "p99", "max")
LIMIT_S: Final = 0.050
PACE_S: Final = 0.25


def _mid_stream(ask: Ask) -> Iterator[Step]:
    """Content without end for a stream; for a whole answer, its first half."""
    if not ask.is_stream:
        yield head_of(ask) + chunk('{"cho')
        yield Hang()
    piece = chunk(ask.wire.text(said(ask.mark, "endless")))
    yield head_of(ask) + chunk(ask.wire.opening) + piece
    yield Pause(PACE_S * random.random())  # So that the streams do not march in step.
    while True:
        yield piece
        yield Pause(PACE_S)


def _first_token(ask: Ask) -> list[Step]:
    return [head_of(ask) + (chunk(ask.wire.opening) if ask.is_stream else b""), Hang()]


@dataclass(frozen=True)
class Phase:
    """How far a request has come when its caller leaves."""

    name: str
    script: Callable[[Ask], Any]
    accepts: str = "requests"


PHASES: Final = (
    Phase("connecting", lambda ask: (), "silence"),
    Phase("waiting for headers", lambda ask: [Hang()]),
    Phase("waiting for the first token", _first_token),
    Phase("mid-stream", _mid_stream),
)


class Caller:
    """One request that can be given up at any time."""

    def __init__(self, asking: Callers, way: str, model_id: str, mark: str) -> None:
        self._asking = asking
        self.way = way
        self._model = model_id
        self._prompt = f"say {mark}"
        self._call: Any = None
        self._writer: asyncio.StreamWriter | None = None
        self.begun = asyncio.Event()
        self.has_left = False

    async def run(self) -> None:
        """Ask, and read until it is given up."""
        asked = spec(self._model, self._prompt)
        with suppress(asyncio.CancelledError, ConnectionError):
            if self.way == "gRPC stream":
                self._call = self._asking.stub.Complete(CompleteRequest(spec=asked))
                async for event in self._call:
                    if event.HasField("text_delta"):
                        self.begun.set()
            elif self.way == "gRPC unary":
                self._call = self._asking.stub.CompleteUnary(CompleteUnaryRequest(spec=asked))
                await self._call
            else:
                reader, self._writer = await asyncio.open_connection(*self._asking.http)
                is_stream = self.way == "SSE"
                self._writer.write(chat(self._model, self._prompt, stream=is_stream))
                while data := await reader.read(65536):
                    if b'"content"' in data:
                        self.begun.set()

    def leave(self, *, reset: bool = False) -> None:
        """Cancel, as a client does that has closed its connection or called `cancel`."""
        if self._call is not None:
            self.has_left = True
            self._call.cancel()
        if self._writer is not None:
            if reset:
                linger = struct.pack("ii", 1, 0)
                self._writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
            self.has_left = True
            self._writer.transport.abort()


def _exceeds(upstream: FaultyUpstream, closings: int) -> bool:
    return upstream.closings > closings


@asynccontextmanager
async def behind(phase: Phase, wire: Wire) -> AsyncIterator[tuple[Service, FaultyUpstream]]:
    """A service with one provider, at which every request stays in one phase."""
    async with faulty(wire, phase.script, accepts=phase.accepts) as upstream:
        entry = wire.provider("slow", upstream.url)
        async with service(providers=[entry], models=[model("m", "slow")]) as started:
            yield started, upstream


@pytest.mark.parametrize(
    ("ways", "count"),
    [
        pytest.param(WAYS, 100, id="all-short"),
        *(pytest.param((way,), 200, id=f"{way}-long", marks=pytest.mark.slow) for way in WAYS),
    ],
)
@pytest.mark.parametrize("phase", PHASES, ids=[phase.name for phase in PHASES])
async def test_the_provider_is_left_at_once(
    phase: Phase, ways: tuple[str, ...], count: int, tables: Tables
):
    delays_s: dict[str, list[float]] = {way: [] for way in ways}
    async with behind(phase, WIRES["openai"]) as (started, upstream), callers(started) as asking:
        found = [
            Caller(asking, ways[number % len(ways)], "m", f"mark-{number}")
            for number in range(count)
        ]
        running = [asyncio.create_task(caller.run()) for caller in found]
        await until(lambda: len(upstream.asks) == count, "all requests at the provider")
        for caller in found:
            if phase.name == "mid-stream" and caller.way in STREAMS:
                await asyncio.wait_for(caller.begun.wait(), WAIT_S)
        await asyncio.sleep(0.05)  # What was sent after the request has been read.
        asks = {ask.mark: ask for ask in upstream.asks}
        assert upstream.closings == 0
        for number, caller in enumerate(found):
            at_s = monotonic()
            caller.leave()
            ask = asks.get(f"mark-{number}")
            if ask is not None:
                await asyncio.wait_for(ask.closed.wait(), WAIT_S)
                closed_at_s = ask.closed_at_s or math.inf
            else:  # Nothing tells connections apart that have not got to the request.
                await until(partial(_exceeds, upstream, number), "one connection more closed")
                closed_at_s = max(ask.closed_at_s or 0.0 for ask in upstream.asks)
            delays_s[caller.way].append(closed_at_s - at_s)
        await asyncio.wait_for(asyncio.gather(*running), WAIT_S)
        await until(lambda: started.admission.in_flight == 0, "no request in flight")
        await until(lambda: started.transport.open_connections == 0, "no connection left")

    for way, each_s in delays_s.items():
        shown = (share_of(each_s, 50), share_of(each_s, 99), max(each_s))
        cells = (f"{delay_s * 1000:.1f}" for delay_s in shown)
        tables.table(TITLE, COLUMNS).add(f"{phase.name}, {way}", len(each_s), count, *cells)
    assert share_of([delay_s for each_s in delays_s.values() for delay_s in each_s], 99) <= LIMIT_S


def share_of(values: list[float], percent: int) -> float:
    """The value that this many percent do not exceed."""
    return sorted(values)[-(-len(values) * percent // 100) - 1]


@dataclass(frozen=True)
class Standing:
    """What a process holds. Equal before and after, nothing has leaked."""

    tasks: int
    files: int
    in_flight: int
    busy: int
    connections: int
    upstream_sockets: int


def standing(started: Service, upstreams: list[FaultyUpstream]) -> Standing:
    """Counted, not remembered."""
    gc.collect()
    return Standing(
        tasks=len(asyncio.all_tasks()),
        files=len(os.listdir("/proc/self/fd")),
        in_flight=started.admission.in_flight,
        busy=started.transport.busy_connections,
        connections=started.transport.open_connections,
        upstream_sockets=sum(upstream.open_sockets for upstream in upstreams),
    )


async def settled(started: Service, upstreams: list[FaultyUpstream]) -> Standing:
    """What a process holds when nothing has changed for a while."""
    latest, same = standing(started, upstreams), 0
    while same < 10:
        await asyncio.sleep(0.02)
        found = standing(started, upstreams)
        latest, same = found, same + 1 if found == latest and not found.in_flight else 0
    return latest


@pytest.mark.parametrize(
    "count",
    [pytest.param(320, id="short"), pytest.param(10_000, id="long", marks=pytest.mark.slow)],
)
async def test_nothing_is_left_behind(count: int, tables: Tables):
    async with _all_phases() as (started, upstreams), callers(started) as asking:
        # The first calls open what stays: the client's connection, the caches of the library.
        await _cancelled(asking, upstreams, 32, offset=0)
        before = await settled(started, upstreams)

        await _cancelled(asking, upstreams, count, offset=32)

        async with asyncio.timeout(WAIT_S):
            after = await settled(started, upstreams)
    tables.table(
        "What is left after cancels in every phase and way",
        ("", "cancels", "tasks", "files", "tickets", "busy", "connections", "upstream sockets"),
    ).add(
        "left behind",
        count,
        *(
            getattr(after, name) - getattr(before, name)
            for name in ("tasks", "files", "in_flight", "busy", "connections", "upstream_sockets")
        ),
    )
    assert after == before
    assert before.in_flight == before.busy == before.connections == before.upstream_sockets == 0


@asynccontextmanager
async def _all_phases() -> AsyncIterator[tuple[Service, list[FaultyUpstream]]]:
    async with AsyncExitStack() as stack:
        upstreams = []
        entries: dict[str, Any] = {"providers": [], "models": []}
        for number, phase in enumerate(PHASES):
            for wire in WIRES.values():
                name = f"{wire.name}-{number}"
                upstream = await stack.enter_async_context(
                    faulty(wire, phase.script, accepts=phase.accepts)
                )
                upstreams.append(upstream)
                entries["providers"].append(wire.provider(name, upstream.url))
                entries["models"].append(model(name, name))
        started = await stack.enter_async_context(service(environment=ENVIRONMENT, **entries))
        yield started, upstreams


async def _cancelled(
    asking: Callers, upstreams: list[FaultyUpstream], count: int, *, offset: int
) -> None:
    """`count` requests, each given up at a moment of its own: at its phase, on the way to it, or hardly begun."""
    turns = asyncio.Semaphore(100)
    wires = list(WIRES)

    async def one(number: int) -> None:
        phase, way = number % len(PHASES), WAYS[number // len(PHASES) % len(WAYS)]
        async with turns:
            name = f"{wires[number % len(wires)]}-{phase}"
            caller = Caller(asking, way, name, f"mark-{number}")
            running = asyncio.create_task(caller.run())
            await asyncio.sleep(number % 50 / 1000)
            caller.leave(reset=number % 2 == 0)
            if not caller.has_left:
                running.cancel()
            await asyncio.wait_for(running, WAIT_S)
        for upstream in upstreams:
            upstream.asks.clear()

    async with asyncio.TaskGroup() as group:
        for number in range(offset, offset + count):
            group.create_task(one(number))
