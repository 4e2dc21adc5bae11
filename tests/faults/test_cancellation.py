"""A caller who goes away: the provider is left at once, in every phase and over every edge. Nothing stays behind."""

import asyncio
import gc
import math
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

import grpc.aio
import pytest

from tests.faults.callers import STREAMS, WAYS, Callers, callers, chat, spec
from tests.faults.gateway import gateway
from tests.faults.lag import share_of
from tests.faults.tables import Tables
from tests.faults.upstreams import (
    Ask,
    FaultyUpstream,
    Step,
    complete,
    faulty,
    head_of,
    whole,
)
from tests.faults.waiting import WAIT_S, until
from tests.faults.wires import ENVIRONMENT, WIRES, Wire, said
from tests.support.service import model, service
from tests.support.upstream import Hang, Pause, chunk
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest
from trunkline_server.app import Service

TITLE: Final = "From a caller's cancel to the provider's closed connection, in ms"
COLUMNS: Final = ("phase, way", "cancels", "open at first", "p50", "p99", "max")
LIMIT_S: Final = 0.050
MAX_S: Final = 0.250
WAITS_S: Final = 1.5  # Before the same provider is asked again.
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
        *(pytest.param((way,), 250, id=f"{way}-long", marks=pytest.mark.slow) for way in WAYS),
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

    _report(phase.name, tables, delays_s, count)


# A second after its request a candidate is hedged, once its first tokens are known. A route has a hedge for twenty
# requests, and a provider is asked no more than three times in ten seconds beyond what it is asked first.
WARMING: Final = 60
HEDGES: Final = 3
AT_ONCE: Final = 30  # A candidate that is new to the gateway is thought to bear 32.


@pytest.mark.parametrize(
    "count",
    [pytest.param(20, id="short"), pytest.param(1_000, id="long", marks=pytest.mark.slow)],
)
async def test_both_providers_are_left_when_a_hedge_is_under_way(count: int, tables: Tables):
    wire, other = WIRES["openai"], WIRES["anthropic"]

    def script(ask: Ask) -> Iterable[Step]:
        return complete(ask, "warm") if ask.mark.startswith("mark-warm") else [Hang()]

    routes = [f"route-{n}" for n in range(-(-count // HEDGES))]
    async with (
        faulty(wire, script) as first,
        faulty(other, script) as second,
        service(
            providers=[
                wire.provider("first", first.url),
                *(other.provider(f"beside-{route}", second.url) for route in routes),
            ],
            models=[
                model("m-first", "first"),
                *(model(f"m-{route}", f"beside-{route}") for route in routes),
            ],
            routes=[
                {
                    "id": route,
                    "candidates": ["m-first", f"m-{route}"],
                    "strategy": "ordered",
                    "hedge": True,
                }
                for route in routes
            ],
        ) as started,
        callers(started) as asking,
    ):
        turns = asyncio.Semaphore(16)

        async def warm(number: int) -> None:
            async with turns:
                prompt = f"say mark-warm-{number}"
                outcome = await asking.ask("gRPC stream", routes[number // WARMING], prompt)
                assert outcome.ends == 1

        async with asyncio.TaskGroup() as group:
            for number in range(WARMING * len(routes)):
                group.create_task(warm(number))
        for upstream in (first, second):
            upstream.asks.clear()

        delays_s: dict[str, list[float]] = {}
        for start in range(0, count, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, count))
            found = {
                f"mark-{n}": Caller(asking, STREAMS[n % 2], routes[n // HEDGES], f"mark-{n}")
                for n in numbers
            }
            running = [asyncio.create_task(caller.run()) for caller in found.values()]
            await until(partial(_has_asked, second, numbers.stop), "all hedges under way")
            await _all_left(found, (first, second), delays_s)
            await asyncio.wait_for(asyncio.gather(*running), WAIT_S)
        await until(lambda: started.admission.in_flight == 0, "no request in flight")
        await until(lambda: started.transport.busy_connections == 0, "no connection busy")
        assert [len(first.asks), len(second.asks)] == [count, count]
    _report("hedge in flight", tables, delays_s, AT_ONCE)


async def _all_left(
    found: Mapping[str, Caller],
    upstreams: Iterable[FaultyUpstream],
    delays_s: dict[str, list[float]],
) -> None:
    """Callers leave, one after the other, and every provider that they were at is left."""
    asks = [{ask.mark: ask for ask in upstream.asks} for upstream in upstreams]
    for mark, caller in found.items():
        at_s = monotonic()
        caller.leave()
        for at in asks:
            await asyncio.wait_for(at[mark].closed.wait(), WAIT_S)
            closed_at_s = at[mark].closed_at_s
            assert closed_at_s is not None
            delays_s.setdefault(caller.way, []).append(closed_at_s - at_s)


def _report(phase: str, tables: Tables, delays_s: Mapping[str, list[float]], at_first: int) -> None:
    for way, each_s in delays_s.items():
        shown = (share_of(each_s, 50), share_of(each_s, 99), max(each_s))
        cells = (f"{delay_s * 1000:.1f}" for delay_s in shown)
        tables.table(TITLE, COLUMNS).add(f"{phase}, {way}", len(each_s), at_first, *cells)
    all_s = [delay_s for each_s in delays_s.values() for delay_s in each_s]
    assert share_of(all_s, 99) <= LIMIT_S
    assert max(all_s) <= MAX_S


@pytest.mark.parametrize(
    "count",
    [pytest.param(40, id="short"), pytest.param(1_000, id="long", marks=pytest.mark.slow)],
)
async def test_nobody_is_asked_again_for_a_caller_who_left_between_attempts(
    count: int, tables: Tables
):
    wire = WIRES["openai"]

    def script(ask: Ask) -> Iterable[Step]:
        return whole(wire.refusal(429), 429, f"retry-after-ms: {int(WAITS_S * 1000)}")

    # A provider for each, because it is providers that have a budget for asking again.
    names = [f"p-{number}" for number in range(count)]
    async with (
        faulty(wire, script) as upstream,
        service(
            providers=[wire.provider(name, upstream.url) for name in names],
            models=[model(f"m-{name}", name) for name in names],
        ) as started,
        callers(started) as asking,
    ):
        delays_s: dict[str, list[float]] = {}
        for start in range(0, count, len(WAYS)):
            found = [
                Caller(asking, way, f"m-{name}", f"mark-{name}")
                for way, name in zip(WAYS, names[start:], strict=False)
            ]
            running = [asyncio.create_task(caller.run()) for caller in found]
            await until(
                partial(_has_asked, upstream, start + len(found)), "all requests at the provider"
            )
            await asyncio.sleep(0.05)  # The refusals have been read.
            assert started.admission.in_flight == len(found)
            for position, caller in enumerate(found):
                at_s = monotonic()
                caller.leave()
                left = len(found) - position - 1
                await until(
                    partial(_has_in_flight, started, left), "one request less", step_s=0.0005
                )
                delays_s.setdefault(caller.way, []).append(monotonic() - at_s)
            await asyncio.wait_for(asyncio.gather(*running), WAIT_S)
        await asyncio.sleep(WAITS_S + 0.2)
        assert len(upstream.asks) == count, "somebody was asked again"
        assert started.transport.busy_connections == 0
    _report("between attempts", tables, delays_s, len(WAYS))


def _has_asked(upstream: FaultyUpstream, count: int) -> bool:
    return len(upstream.asks) == count


def _has_in_flight(started: Service, count: int) -> bool:
    return started.admission.in_flight == count


@pytest.mark.parametrize(
    "count",
    [pytest.param(40, id="short"), pytest.param(1_000, id="long", marks=pytest.mark.slow)],
)
async def test_the_provider_is_left_at_once_during_drain_too(
    count: int, tmp_path: Path, tables: Tables
):
    wire = WIRES["openai"]
    async with (
        faulty(wire, _mid_stream) as upstream,
        gateway(
            tmp_path,
            server={"drain_s": 120, "lb_grace_s": 0},
            providers=[wire.provider("p", upstream.url)],
            models=[model("m", "p")],
        ) as running,
        grpc.aio.insecure_channel(
            running.grpc_address,
            [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)],
        ) as channel,
    ):
        asking = Callers(channel, running.http_address)
        found = {
            f"mark-{n}": Caller(asking, STREAMS[n % 2], "m", f"mark-{n}") for n in range(count)
        }
        reading = [asyncio.create_task(caller.run()) for caller in found.values()]
        for caller in found.values():
            await asyncio.wait_for(caller.begun.wait(), WAIT_S)
        running.terminate()
        await asyncio.sleep(0.5)
        assert running.process.returncode is None

        delays_s: dict[str, list[float]] = {}
        await _all_left(found, [upstream], delays_s)

        # Nothing is left to wait for, so the process does not wait.
        since_s = monotonic()
        assert await running.exit_code(WAIT_S) == 0
        assert monotonic() - since_s < 5
        await asyncio.wait_for(asyncio.gather(*reading), WAIT_S)
    _report("during drain", tables, delays_s, count)


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
