"""Callers who never read cost little memory, and nobody else any time."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

import grpc
import grpc.aio
import pytest

from tests.faults.callers import chat, spec
from tests.faults.gateway import Gateway, gateway
from tests.faults.lag import share_of
from tests.faults.tables import Tables
from tests.faults.upstreams import Ask, FaultyUpstream, Step, faulty, head_of
from tests.faults.usage import resident_bytes
from tests.faults.waiting import until
from tests.faults.wires import WIRES
from tests.support.service import model
from tests.support.upstream import Pause, chunk
from trunkline.v1.completion_service_pb2 import CompleteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub

WIRE: Final = WIRES["openai"]
OTHERS: Final = 10
GAP_S: Final = 0.02
PIECES_PER_S: Final = 5_000  # To all who do not read, together.
FLOOD_S: Final = 50.0  # After 60 s an HTTP client that takes nothing is disconnected.
MAX_GROWTH_BYTES: Final = 60 * 1024 * 1024 // 200  # Of one caller.
MAX_SLOWDOWN: Final = 1.1
CLOCK_S: Final = 0.005  # What a busy machine adds to any gap.
OPTIONS: Final = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
# As much as is asked for before anybody reads, and not a window that grows with the speed of loopback.
NARROW: Final = [*OPTIONS, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]


class Flood:
    """A provider that sends more than anybody takes who does not read, at a pace that is no load in itself."""

    def __init__(self, count: int) -> None:
        self._pause = Pause(count / PIECES_PER_S)
        self._piece = chunk(WIRE.text("word " * 3_200))
        self.pieces = Counter[str]()

    def script(self, ask: Ask) -> Iterator[Step]:
        """To those who read, a small piece at even distances."""
        is_slow = ask.mark.startswith("mark-slow")
        piece = self._piece if is_slow else chunk(ask.wire.text("word "))
        pause = self._pause if is_slow else Pause(GAP_S)
        yield head_of(ask) + chunk(ask.wire.opening)
        while True:
            yield piece
            if is_slow:
                self.pieces[ask.mark] += 1
            yield pause

    async def blocked(self, limit_s: float) -> None:
        """Waits until nobody takes any more."""
        async with asyncio.timeout(limit_s):
            while True:
                before = self.pieces.total()
                await asyncio.sleep(1)
                if self.pieces.total() == before:
                    return


@pytest.mark.parametrize(
    ("count", "seconds"),
    [
        pytest.param(60, 1.5, id="short"),
        pytest.param(200, 20.0, id="long", marks=pytest.mark.slow),
    ],
)
async def test_callers_who_never_read_cost_little_and_slow_nobody_down(
    count: int, seconds: float, tmp_path: Path, tables: Tables
):
    flood = Flood(count)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(faulty(WIRE, flood.script))
        running = await stack.enter_async_context(
            gateway(
                tmp_path,
                providers=[WIRE.provider("p", upstream.url)],
                models=[model("m", "p")],
            )
        )
        readers = await stack.enter_async_context(Readers.reading(running))
        await asyncio.sleep(0.5)
        gaps_before_s = await readers.gaps(seconds)
        before_bytes = resident_bytes(running.process.pid)

        await _never_read(stack, running, upstream, count)
        await flood.blocked(FLOOD_S)
        gaps_then_s = await readers.gaps(seconds)
        growth_bytes = resident_bytes(running.process.pid) - before_bytes

    before_s, then_s = share_of(gaps_before_s, 99), share_of(gaps_then_s, 99)
    tables.table(
        "Callers who never read",
        ("", "sent to each, KiB", "memory, MiB", "more, MiB", "gap p99 ms", "of the others then"),
    ).add(
        f"{count} callers",
        f"{flood.pieces.total() / count * 16:.0f}",
        f"{before_bytes / 2**20:.0f}",
        f"{growth_bytes / 2**20:.1f}",
        f"{before_s * 1000:.1f}",
        f"{then_s * 1000:.1f}",
    )
    assert len(flood.pieces) == count
    assert growth_bytes < count * MAX_GROWTH_BYTES
    assert then_s <= max(MAX_SLOWDOWN * before_s, before_s + CLOCK_S)


class Readers:
    """Callers who read, and the gaps between what they get."""

    def __init__(self) -> None:
        self._gaps_s: list[float] = []

    @staticmethod
    @asynccontextmanager
    async def reading(running: Gateway) -> AsyncIterator["Readers"]:
        """Half of them over each edge."""
        readers = Readers()
        async with grpc.aio.insecure_channel(running.grpc_address, OPTIONS) as channel:
            tasks = [
                asyncio.create_task(
                    readers._over_grpc(channel, n) if n % 2 else readers._over_http(running, n)
                )
                for n in range(OTHERS)
            ]
            yield readers
            for task in tasks:
                assert not task.done(), "a reader's stream has ended"
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def gaps(self, seconds: float) -> list[float]:
        """Seconds between one piece and the next, of all readers, for so long from now."""
        self.forget()
        await asyncio.sleep(seconds)
        return self.seen()

    def forget(self) -> None:
        """Begin anew."""
        self._gaps_s.clear()

    def seen(self) -> list[float]:
        """Since then."""
        return [*self._gaps_s]

    async def _over_grpc(self, channel: grpc.aio.Channel, number: int) -> None:
        asked = CompleteRequest(spec=spec("m", f"say mark-reader-{number}"))
        # Not merged, so that each piece comes by itself.
        asked.stream_options.coalesce_window.FromNanoseconds(0)
        call: Any = CompletionServiceStub(channel).Complete(asked)
        last_s = monotonic()
        async for _ in call:
            now_s = monotonic()
            self._gaps_s.append(now_s - last_s)
            last_s = now_s

    async def _over_http(self, running: Gateway, number: int) -> None:
        host, _, port = running.http_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(chat("m", f"say mark-reader-{number}", stream=True))
            last_s = monotonic()
            while await reader.readline():
                now_s = monotonic()
                # The lines of one piece come together.
                if now_s - last_s > GAP_S / 4:
                    self._gaps_s.append(now_s - last_s)
                    last_s = now_s
        finally:
            writer.close()


async def _never_read(
    stack: AsyncExitStack, running: Gateway, upstream: FaultyUpstream, count: int
) -> None:
    """So many more, half of them over each edge. Each has a connection of its own."""
    known = _slow(upstream)
    host, _, port = running.http_address.rpartition(":")
    for number in range(count):
        prompt = f"say mark-slow-{known}-{number}"
        if number % 2:
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(running.grpc_address, NARROW)
            )
            call: Any = CompletionServiceStub(channel).Complete(
                CompleteRequest(spec=spec("m", prompt))
            )
            stack.callback(call.cancel)
        else:
            connection = stack.enter_context(socket.create_connection((host, int(port)), 5))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.sendall(chat("m", prompt, stream=True))
    # Those who are there already are flooded meanwhile.
    await until(lambda: _slow(upstream) == known + count, "all requests at the provider", FLOOD_S)


def _slow(upstream: FaultyUpstream) -> int:
    return sum(ask.mark.startswith("mark-slow") for ask in upstream.asks)
