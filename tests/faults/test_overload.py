"""More load than there is room for: whoever is let in is served as well as ever, and the rest is sent away at once."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

import pytest

from tests.faults.gateway import Gateway, gateway
from tests.faults.lag import loop_lag, share_of
from tests.faults.pace import open_loop
from tests.faults.rest import RestPool
from tests.faults.tables import Tables
from tests.faults.usage import cpu_s, pin
from tests.faults.wires import WIRES, Counts
from tests.support.service import model

WIRE: Final = WIRES["openai"]
TIMES: Final = 3
MIN_GOODPUT: Final = 0.9
MAX_SLOWDOWN: Final = 2.0
REJECTION_S: Final = 0.001
TIMEOUT_S: Final = 20.0
CONTROL_EVERY_S: Final = 0.1
RECOVERY_S: Final = 6.0  # By then the gateway has forgotten that there was too much.


@dataclass(frozen=True)
class Limit:
    """What there is little of.

    Attributes:
        max_in_flight: of the gateway.
        latency_s: of the provider.
        turns: of the conversation that is sent: small, but each is work for the gateway.
        callers: how many at once find the capacity.
        is_of_machine: it depends on how fast the machine is, so there is a control.
    """

    name: str
    max_in_flight: int
    latency_s: float
    turns: int
    callers: int
    is_of_machine: bool = False


# At nine tenths of `max_in_flight` the house is full for requests of the usual criticality. Where it is the processor
# that is short, it is full with as many as the gateway keeps when its loop runs late.
LIMITS: Final = (
    Limit("in flight", 20, 0.2, 1, 18),
    Limit("CPU", 2_000, 0.02, 301, 16, is_of_machine=True),
)


@dataclass
class Score:
    """Of one load.

    Attributes:
        control_cpu_s: what the requests of the control took meanwhile.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    served_s: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    control_cpu_s: float = 0.0
    control_requests: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.seconds + other.seconds,
            self.statuses + other.statuses,
            self.served_s + other.served_s,
            self.without_retry_after + other.without_retry_after,
            self.control_cpu_s + other.control_cpu_s,
            self.control_requests + other.control_requests,
        )

    @property
    def goodput(self) -> float:
        """Answers in a second."""
        return len(self.served_s) / self.seconds

    @property
    def control_s(self) -> float:
        """CPU of one request to the control; 1 where there was none."""
        return self.control_cpu_s / self.control_requests if self.control_requests else 1.0


@asynccontextmanager
async def slow_upstream(latency_s: float) -> AsyncIterator[str]:
    """The same answer for all, after a while; nothing is read into what it is asked."""
    body = WIRE.whole("Hello", Counts())
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (len(body), body)
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                await asyncio.sleep(latency_s)
                writer.write(answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=2048, limit=1024 * 1024)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@asynccontextmanager
async def behind(limit: Limit, folder: Path) -> AsyncIterator[tuple[Gateway, RestPool]]:
    async with (
        slow_upstream(limit.latency_s) as url,
        gateway(
            folder,
            limits={"max_in_flight": limit.max_in_flight},
            providers=[WIRE.provider("p", url)],
            models=[model("m", "p")],
        ) as running,
    ):
        pool = RestPool(running.http_address)
        yield running, pool
        pool.close()


def question(turns: int) -> bytes:
    """A conversation so far."""
    roles = ("user", "assistant")
    messages = [{"role": roles[turn % 2], "content": "word"} for turn in range(turns)]
    return json.dumps({"model": "m", "messages": messages}).encode()


async def ask(pool: RestPool, body: bytes, score: Score) -> None:
    """Once."""
    since_s = monotonic()
    try:
        answer = await pool.post(body, TIMEOUT_S)
    except (TimeoutError, ConnectionError) as error:
        score.statuses[0 if isinstance(error, TimeoutError) else -1] += 1
        return
    score.statuses[answer.status] += 1
    if answer.status == 200:
        score.served_s.append(monotonic() - since_s)
    elif not answer.retry_after:
        score.without_retry_after += 1


async def capacity(pool: RestPool, body: bytes, callers: int, seconds: float) -> Score:
    """So many callers, each of whom asks again when it has been answered."""
    score = Score()
    start_s = monotonic()

    async def caller() -> None:
        while monotonic() < start_s + seconds:
            await ask(pool, body, score)

    await asyncio.gather(*(caller() for _ in range(callers)))
    score.seconds = monotonic() - start_s
    return score


async def overload(pool: RestPool, body: bytes, rate_per_s: float, seconds: float) -> Score:
    """Callers who come at a rate, whatever becomes of them."""
    score = Score()
    start_s = monotonic()

    async def one(number: int) -> None:
        await ask(pool, body, score)

    await open_loop(one, rate_per_s, seconds)
    score.seconds = monotonic() - start_s
    return score


Beside = Callable[[Awaitable[Score]], Awaitable[Score]]


@asynccontextmanager
async def control(limit: Limit, folder: Path, body: bytes, pid: int) -> AsyncIterator[Beside]:
    """Awaits a load, and finds out how fast the machine is meanwhile, where that is what limits.

    The control is the same gateway on the same CPU, asked so seldom that only the machine makes its requests dear.
    This process, which asks them both, stays on the other CPUs.
    """
    if not limit.is_of_machine:
        yield _alone
        return
    cpus = os.sched_getaffinity(0)
    async with behind(limit, folder) as (running, pool):
        for gateway_pid in (pid, running.process.pid):
            pin(gateway_pid, max(cpus))
        pin(os.getpid(), *(cpus - {max(cpus)} or cpus))

        async def ask_now_and_then(score: Score) -> None:
            while True:
                await ask(pool, body, score)
                await asyncio.sleep(CONTROL_EVERY_S)

        async def beside(load: Awaitable[Score]) -> Score:
            asked = Score()
            spent_s = cpu_s(running.process.pid)
            asking = asyncio.create_task(ask_now_and_then(asked))
            try:
                score = await load
            finally:
                asking.cancel()
                await asyncio.wait([asking])
            assert set(asked.statuses) == {200}
            score.control_cpu_s = cpu_s(running.process.pid) - spent_s
            score.control_requests = len(asked.served_s)
            return score

        await capacity(pool, body, 1, 0.5)
        try:
            yield beside
        finally:
            pin(os.getpid(), *cpus)


async def _alone(load: Awaitable[Score]) -> Score:
    return await load


@pytest.mark.parametrize(
    ("limit", "measure_s", "load_s", "slowdown"),
    [
        # Until the line has found out that it is too long, it is.
        pytest.param(LIMITS[0], 1.0, 3.0, 1.5 * MAX_SLOWDOWN, id="in flight-short"),
        *(
            pytest.param(limit, 30.0, 300.0, MAX_SLOWDOWN, id=limit.name, marks=pytest.mark.slow)
            for limit in LIMITS
        ),
    ],
)
async def test_three_times_the_load_is_no_reason_to_do_less(
    limit: Limit,
    measure_s: float,
    load_s: float,
    slowdown: float,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    tables: Tables,
):
    other_path = tmp_path_factory.mktemp("control")
    body = question(limit.turns)
    async with (
        behind(limit, tmp_path) as (running, pool),
        control(limit, other_path, body, running.process.pid) as beside,
    ):
        await capacity(pool, body, limit.callers, 0.5)  # The first requests open what stays.
        peak = await beside(capacity(pool, body, limit.callers, measure_s))
        spent_s = cpu_s(running.process.pid)
        async with loop_lag() as lag_s:
            score = await beside(overload(pool, body, TIMES * peak.goodput, load_s))
        spent_s = cpu_s(running.process.pid) - spent_s
        await asyncio.sleep(RECOVERY_S)
        # Machines grow faster and slower within minutes, so what it can do counts from before and from after.
        peak += await beside(capacity(pool, body, limit.callers, measure_s))

    slower = score.control_s / peak.control_s
    goodput = score.goodput / peak.goodput * slower
    slowest_s, before_s = share_of(score.served_s, 99), share_of(peak.served_s, 99)
    tables.table(
        f"{TIMES} times more load than there is room for",
        (
            "limited by",
            "seconds",
            "peak/s",
            "p99 ms",
            "offered/s",
            "served/s",
            "machine slower by",
            "of the peak",
            "p99 ms then",
            "sent away",
            "else",
            "CPU",
            "own lag p99 ms",
        ),
    ).add(
        limit.name,
        f"{load_s:g}",
        f"{peak.goodput:.0f}",
        f"{before_s * 1000:.0f}",
        f"{score.statuses.total() / score.seconds:.0f}",
        f"{score.goodput:.0f}",
        f"{slower - 1:.0%}",
        f"{goodput:.0%}",
        f"{slowest_s * 1000:.0f}",
        score.statuses[503],
        score.statuses.total() - score.statuses[200] - score.statuses[503],
        f"{spent_s / score.seconds:.0%}",
        f"{share_of(lag_s, 99) * 1000:.0f}",
    )
    assert set(peak.statuses) == {200}
    assert set(score.statuses) == {200, 503}
    assert score.without_retry_after == 0
    assert goodput >= MIN_GOODPUT
    assert slowest_s <= slowdown * before_s * slower


@pytest.mark.parametrize(
    "count",
    [pytest.param(300, id="short"), pytest.param(20_000, id="long", marks=pytest.mark.slow)],
)
async def test_to_be_sent_away_costs_less_than_a_millisecond(
    count: int, tmp_path: Path, tables: Tables
):
    full = Limit("full", 1, 300.0, 1, 1)
    body = question(full.turns)
    score = Score()
    async with (
        slow_upstream(full.latency_s) as url,
        gateway(
            tmp_path,
            limits={"max_in_flight": full.max_in_flight, "max_waiting": 0},
            providers=[WIRE.provider("p", url)],
            models=[model("m", "p")],
        ) as running,
    ):
        pool = RestPool(running.http_address)
        first = asyncio.create_task(pool.post(body, full.latency_s))
        await asyncio.sleep(0.3)
        await ask(pool, body, Score())
        spent_s = cpu_s(running.process.pid)
        for _ in range(count):
            await ask(pool, body, score)
        each_s = (cpu_s(running.process.pid) - spent_s) / count
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        pool.close()

    tables.table("To be sent away", ("", "requests", "CPU ms each")).add(
        "503", count, f"{each_s * 1000:.2f}"
    )
    assert score.statuses == {503: count}
    assert score.without_retry_after == 0
    assert each_s < REJECTION_S
