"""Three times more load than the processor can bear, in virtual time: the same on every machine.

The loop's clock stands still but for timers and for the work that requests say they do, so what is measured is the
door's doing alone. What it does in a real process is the fault laboratory's to show.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Any, Final

import pytest

from trunkline_server.completion.admission import Admission
from trunkline_server.core.errors import Overloaded
from trunkline_server.core.pressure import SAMPLE_S, Criticality, Pressure, Sample
from trunkline_server.telemetry.process import TICK_S

STANDARD: Final = Criticality.STANDARD
REFUSAL_S: Final = 0.00015
TIMES: Final = 3
MEASURE_S: Final = 8.0
SETTLE_S: Final = 2.0  # Until the door has found out what is going on.


class IdleSelector(selectors.DefaultSelector):
    """Where a loop would sleep, time passes at once."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> Any:
        """As of the base class."""
        events = super().select(0)
        if not events and timeout:
            self.loop.now_s += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes while it sleeps, and while somebody works."""

    def __init__(self) -> None:
        selector = IdleSelector()
        super().__init__(selector)
        selector.loop = self
        self.now_s = 0.0
        self.cpu_s = 0.0
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Of this world."""
        return self.now_s

    def work(self, seconds: float) -> None:
        """Nothing else happens meanwhile."""
        self.now_s += seconds
        self.cpu_s += seconds


class Server:
    """A gateway that does nothing but to wait for its provider, and to work so much for each request."""

    def __init__(self, loop: VirtualLoop, work_s: float, provider_s: float) -> None:
        self.loop = loop
        self.work_s = work_s
        self.provider_s = provider_s
        self.door = Admission(Pressure(2_000))
        self.served: list[tuple[float, float]] = []
        self.refused = 0
        self._cpu_s = self._due_s = 0.0
        self._sample_at_s = SAMPLE_S
        self._tick_later()

    def _tick_later(self) -> None:
        self._due_s = self.loop.time() + TICK_S
        self.loop.call_at(self._due_s, self._tick)

    def _tick(self) -> None:
        self.door.feel(self.loop.time() - self._due_s)
        if self.loop.time() >= self._sample_at_s:
            spent_s, self._cpu_s = self.loop.cpu_s - self._cpu_s, self.loop.cpu_s
            self.door.observe(Sample(cpu_s=spent_s))
            self._sample_at_s = self.loop.time() + SAMPLE_S
        self._tick_later()

    async def request(self, since_s: float) -> None:
        """One, which was sent at that instant. Read, parsed and encoded in turns of the loop, as a real one is."""
        loop, door = self.loop, self.door
        loop.work(REFUSAL_S)
        try:
            is_strained = door.is_strained(loop.time())
            with door.expect(STANDARD) if is_strained else nullcontext():
                await asyncio.sleep(0)
                loop.work(0.35 * self.work_s)
                with await door.admit(STANDARD, 1_000):
                    loop.work(0.35 * self.work_s)
                    await asyncio.sleep(self.provider_s)
                    loop.work(0.1 * self.work_s)
                    await asyncio.sleep(0)
                    loop.work(0.2 * self.work_s)
        except Overloaded:
            self.refused += 1
            return
        self.served.append((since_s, loop.time() - since_s))

    async def closed(self, callers: int, seconds: float) -> tuple[float, float]:
        """So many callers, each of whom asks again once it is answered: answers in a second, and their p99."""
        start_s = self.loop.time()

        async def caller(number: int) -> None:
            await asyncio.sleep(number / callers)  # Not all in step.
            while self.loop.time() < start_s + seconds:
                await self.request(self.loop.time())
                await asyncio.sleep(0.0005)

        await asyncio.gather(*(caller(number) for number in range(callers)))
        return self._since(start_s)

    async def open(self, rate_per_s: float, seconds: float) -> tuple[float, float]:
        """Callers who come whatever becomes of them. Those who come while the loop is late are all there at once."""
        start_s = self.loop.time()
        arrivals_s = [start_s + n / rate_per_s for n in range(int(rate_per_s * seconds))]
        tasks = []
        for at_s in arrivals_s:
            if at_s > self.loop.time():
                await asyncio.sleep(at_s - self.loop.time())
            tasks.append(asyncio.create_task(self.request(at_s)))
        await asyncio.gather(*tasks)
        return self._since(start_s + SETTLE_S)

    def _since(self, start_s: float) -> tuple[float, float]:
        took_s = sorted(took_s for since_s, took_s in self.served if since_s >= start_s)
        return len(took_s) / (self.loop.time() - start_s), took_s[int(len(took_s) * 0.99)]


def run(main: Coroutine[Any, Any, Any], loop: VirtualLoop) -> Any:
    """To the end, in that loop."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


@pytest.mark.parametrize(
    ("work_s", "provider_s", "callers"),
    [(0.0035, 0.02, 16), (0.006, 0.02, 24), (0.012, 0.02, 16), (0.006, 0.5, 75)],
    ids=["few callers", "usual", "dear", "slow provider"],
)
def test_three_times_the_load_leaves_goodput_and_latency_as_they_were(work_s, provider_s, callers):
    async def measured() -> tuple[float, float, int, float, float, int]:
        server = Server(loop, work_s, provider_s)
        await server.closed(callers, 2.0)
        refused = server.refused
        peak, before_s = await server.closed(callers, MEASURE_S)
        refused = server.refused - refused
        await asyncio.sleep(5.0)
        goodput, then_s = await server.open(TIMES * peak, SETTLE_S + MEASURE_S)
        return peak, before_s, refused, goodput, then_s, server.refused

    loop = VirtualLoop()
    peak, before_s, refused_at_peak, goodput, then_s, refused = run(measured(), loop)

    assert refused_at_peak <= 0.02 * peak * MEASURE_S
    assert refused > peak * MEASURE_S
    refusing = REFUSAL_S * (TIMES - 1) * peak  # Seconds of CPU in each.
    assert goodput >= 0.94 * (1 - refusing) * peak
    assert then_s <= 2 * before_s


def test_load_below_capacity_is_let_in_whole():
    async def measured() -> tuple[float, int]:
        server = Server(loop, 0.006, 0.02)
        goodput, _ = await server.open(130.0, MEASURE_S)
        return goodput, server.refused

    loop = VirtualLoop()

    goodput, refused = run(measured(), loop)

    assert refused == 0
    assert goodput == pytest.approx(130, rel=0.05)
