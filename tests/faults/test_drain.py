"""SIGTERM: what runs goes on, nobody new is let in, and whoever takes too long is told why."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from time import monotonic
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.faults.callers import Callers, Outcome, chat, response_of, spec
from tests.faults.gateway import Gateway, gateway
from tests.faults.tables import Tables
from tests.faults.upstreams import Ask, FaultyUpstream, Step, faulty, head_of, healthy
from tests.faults.waiting import until
from tests.faults.wires import WIRES, said
from tests.support.service import model, provider
from tests.support.upstream import END, Pause, chunk
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest
from trunkline_server.app_ending import HARD_STOP_S

STREAMS = 100
WAYS = ("gRPC stream", "SSE")
TITLE = "SIGTERM with 100 running streams"
COLUMNS = ("", "complete", "told DRAINING", "not serving after", "exit after", "exit code")
SERVICES = ("", "trunkline.v1.CompletionService", "trunkline.v1.CatalogService")


def paced(seconds: float | Callable[[str], float]) -> Callable[[Ask], Iterator[Step]]:
    """An upstream that takes this long over an answer; or as long as its mark says."""

    def script(ask: Ask) -> Iterator[Step]:
        events = ask.wire.stream(said(ask.mark, "paced"))
        takes_s = seconds(ask.mark) if callable(seconds) else seconds
        yield head_of(ask)
        for event in events:
            yield chunk(event)
            yield Pause(takes_s / len(events))
        yield END

    return script


async def page(running: Gateway, path: str) -> int:
    """The status of an operators' page; 0 where nobody listens any more."""
    return await page_at(running.http_address, path)


async def page_at(address: str, path: str) -> int:
    """The same, of any process."""
    try:
        reader, writer = await asyncio.open_connection(*address.split(":"))
    except OSError:
        return 0
    writer.write(f"GET {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n".encode())
    try:
        return response_of(await reader.read()).status
    except ConnectionError:
        return 0
    finally:
        writer.close()


@dataclass
class Draining:
    """A gateway with streams that run."""

    gateway: Gateway
    upstream: FaultyUpstream
    asking: Callers
    health: Any
    streams: list[asyncio.Task[Outcome]]

    async def serving(self) -> list[int]:
        """The health of each service."""
        checks = [self.health.Check(health_pb2.HealthCheckRequest(service=s)) for s in SERVICES]
        return [(await check).status for check in checks]

    async def page(self, path: str) -> int:
        """The status of an operators' page; 0 where nobody listens any more."""
        return await page(self.gateway, path)

    async def knock(self) -> grpc.StatusCode:
        """What a new client is told."""
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.gateway.grpc_address, options) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            try:
                await health.Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

    async def terminate(self) -> float:
        """SIGTERM. Returns the seconds until those who watch the health of the service know."""
        status = health_pb2.HealthCheckResponse
        watch = self.health.Watch(health_pb2.HealthCheckRequest(service=SERVICES[1]))
        assert (await anext(aiter(watch))).status == status.SERVING
        since_s = monotonic()
        self.gateway.terminate()
        async with asyncio.timeout(5):
            assert (await anext(aiter(watch))).status == status.NOT_SERVING
        found_s = monotonic() - since_s
        watch.cancel()
        return found_s


@asynccontextmanager
async def draining(
    folder: Path,
    answer_s: float | Callable[[str], float],
    streams: int = STREAMS,
    **server: Any,
) -> AsyncIterator[Draining]:
    """Streams that have had their first content, half of them over each edge."""
    wire = WIRES["openai"]
    async with (
        faulty(wire, paced(answer_s)) as upstream,
        gateway(
            folder,
            server=server,
            providers=[provider("p", upstream.url)],
            models=[model("m", "p")],
        ) as running,
        grpc.aio.insecure_channel(
            running.grpc_address,
            [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)],
        ) as channel,
    ):
        asking = Callers(channel, running.http_address)
        health: Any = health_pb2_grpc.HealthStub(channel)
        asked = [
            asyncio.create_task(asking.ask(WAYS[number % 2], "m", f"say {mark(number)}"))
            for number in range(streams)
        ]
        found = Draining(running, upstream, asking, health, asked)
        assert set(await found.serving()) == {health_pb2.HealthCheckResponse.SERVING}
        assert await found.page("/readyz") == 200
        await until(lambda: len(upstream.asks) == streams, "all streams at the provider")
        # Two events each, of which the second holds content, have gone out and been read.
        await asyncio.sleep(0.6 if callable(answer_s) else 0.2 * answer_s)
        yield found
        for stream in asked:
            stream.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


def mark(number: int) -> str:
    """Of one stream."""
    return f"mark-{number}"


def counts(outcomes: list[Outcome], first: int = 0) -> tuple[int, int]:
    """Complete answers, and streams that were told that the gateway goes down. All else fails the test."""
    complete = told = 0
    for number, outcome in enumerate(outcomes, first):
        text = said(mark(number), "paced")
        if outcome.ends:
            assert outcome.errors == (), outcome
            assert outcome.text == text, outcome
            complete += 1
        else:
            # OpenAI has no word for it: the error's code is that of an overload.
            assert outcome.errors == (("DRAINING",), ("OVERLOADED",))[number % 2], outcome
            assert text.startswith(outcome.text), outcome
            told += 1
    return complete, told


async def ended(found: Draining, since_s: float, limit_s: float) -> tuple[list[Outcome], float]:
    """All streams' outcomes, and the seconds until the process was gone."""
    outcomes = await asyncio.wait_for(asyncio.gather(*found.streams), limit_s)
    await found.gateway.exit_code(limit_s)
    return outcomes, monotonic() - since_s


async def test_streams_that_run_finish_and_the_process_exits_0(tmp_path: Path, tables: Tables):
    async with draining(tmp_path, 3.0, drain_s=20, lb_grace_s=0.5) as found:
        since_s = monotonic()
        not_serving_s = await found.terminate()
        assert set(await found.serving()) == {health_pb2.HealthCheckResponse.NOT_SERVING}
        pages = [await found.page("/readyz"), await found.page("/livez")]
        await asyncio.sleep(since_s + 1.5 - monotonic())
        late = await found.knock()
        late_page = await found.page("/v1/models")
        outcomes, exit_s = await ended(found, since_s, 20)
        code = found.gateway.process.returncode

    complete, told = counts(outcomes)
    tables.table(TITLE, COLUMNS).add(
        "streams of 3 s, drain_s 20",
        *(complete, told, f"{not_serving_s * 1000:.0f} ms", f"{exit_s:.1f} s", code),
    )
    assert (complete, told, code) == (STREAMS, 0, 0)
    assert pages == [503, 200]
    assert (late, late_page) == (grpc.StatusCode.UNAVAILABLE, 0)
    assert not_serving_s < 0.25
    assert exit_s < 8


async def test_a_second_signal_ends_the_streams_at_once(tmp_path: Path, tables: Tables):
    async with draining(tmp_path, 5.0, drain_s=60, lb_grace_s=0) as found:
        not_serving_s = await found.terminate()
        since_s = monotonic()
        found.gateway.terminate()
        outcomes, exit_s = await ended(found, since_s, 20)
        code = found.gateway.process.returncode

    complete, told = counts(outcomes)
    tables.table(TITLE, COLUMNS).add(
        "streams of 5 s, a second SIGTERM",
        *(complete, told, f"{not_serving_s * 1000:.0f} ms", f"{exit_s:.1f} s", code),
    )
    assert (complete, told) == (0, STREAMS)
    assert code == 0
    assert exit_s < 4


async def test_streams_that_take_too_long_are_told_so(tmp_path: Path, tables: Tables):
    async with draining(tmp_path, 5.0, drain_s=3, lb_grace_s=0) as found:
        since_s = monotonic()
        not_serving_s = await found.terminate()
        outcomes, exit_s = await ended(found, since_s, 20)
        code = found.gateway.process.returncode

    complete, told = counts(outcomes)
    tables.table(TITLE, COLUMNS).add(
        "streams of 5 s, drain_s 3",
        *(complete, told, f"{not_serving_s * 1000:.0f} ms", f"{exit_s:.1f} s", code),
    )
    assert (complete, told) == (0, STREAMS)
    assert code == 0
    assert exit_s < 3 + 1 + 1


# Of four streams three fit into the drain less the 2 s for telling those who do not, and one is too long.
FITS_S = 1.5
TOO_LONG_S = 8.0
DRAIN_S = 4.0


def takes_s(mark: str) -> float:
    """How long an answer takes."""
    return FITS_S if fits(mark) else TOO_LONG_S


def fits(mark: str) -> bool:
    """Is its stream over in time?"""
    return int(mark.rpartition("-")[2]) % 4 != 3


@pytest.mark.parametrize(
    ("streams", "runs"),
    [
        pytest.param(60, 1, id="short"),
        *(
            pytest.param(200, 20, id=f"long-{part}", marks=pytest.mark.slow)
            for part in range(1, 11)
        ),
    ],
)
async def test_no_stream_that_fits_the_drain_is_cut(
    streams: int, runs: int, tmp_path: Path, tables: Tables, request: pytest.FixtureRequest
):
    complete = told = cut = accepted = 0
    exits_s: list[float] = []
    for _ in range(runs):
        async with draining(tmp_path, takes_s, streams, drain_s=DRAIN_S, lb_grace_s=0) as found:
            since_s = monotonic()
            await found.terminate()
            await asyncio.sleep(since_s + 0.5 - monotonic())
            late = await asyncio.gather(
                *(found.asking.ask(way, "m", f"say mark-late-{way == 'SSE'}") for way in WAYS),
                found.page("/v1/models"),
                found.knock(),
                return_exceptions=True,
            )
            outcomes, exit_s = await ended(found, since_s, DRAIN_S + 20)
            assert found.gateway.process.returncode == 0
            accepted += sum(asked.mark.startswith("mark-late") for asked in found.upstream.asks)
            accepted += sum(isinstance(answer, Outcome) and answer.ends for answer in late)
            assert late[2:] == [0, grpc.StatusCode.UNAVAILABLE]
        exits_s.append(exit_s)
        for number, outcome in enumerate(outcomes):
            counts([outcome], number)
            complete += outcome.ends
            told += not outcome.ends
            cut += fits(mark(number)) and not outcome.ends

    tables.table(
        "SIGTERM in the middle of streams of which three in four fit the drain",
        (
            "",
            "runs",
            "streams",
            "complete",
            "told DRAINING",
            "cut though they fit",
            "let in late",
            "exit after, at most",
        ),
    ).add(
        request.node.callspec.id,
        *(runs, runs * streams, complete, told, cut, accepted, f"{max(exits_s):.1f} s"),
    )
    assert (cut, accepted) == (0, 0)
    assert told == runs * streams // 4
    assert max(exits_s) <= DRAIN_S + 1


async def test_whoever_comes_too_late_is_told_so(tmp_path: Path):
    endings: list[grpc.StatusCode] = []
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with (
        healthy(WIRES["openai"], "well") as upstream,
        gateway(
            tmp_path,
            server={"drain_s": 10, "lb_grace_s": 0},
            providers=[provider("p", upstream.url)],
            models=[model("m", "p")],
        ) as running,
        grpc.aio.insecure_channel(running.grpc_address, options) as channel,
    ):
        asking = Callers(channel, running.http_address)

        async def one() -> None:
            """Asks until it is refused."""
            try:
                while True:
                    asked = CompleteUnaryRequest(spec=spec("m", "say mark-1"))
                    await asking.stub.CompleteUnary(asked, timeout=10)
            except grpc.aio.AioRpcError as error:
                endings.append(error.code())

        asked = [asyncio.create_task(one()) for _ in range(40)]
        await until(lambda: len(upstream.asks) > 80, "all callers at work")
        running.terminate()
        await asyncio.gather(*asked)
        assert await running.exit_code(20) == 0

    assert Counter(endings) == {grpc.StatusCode.UNAVAILABLE: 40}


# What hangs, as a database would that does not answer: for the loop, with the loop, or in a thread that is left behind.
HANGS = {
    "waits": "async def close(self): await asyncio.Event().wait()",
    "blocks": "async def close(self): threading.Event().wait()",
    "leaves a thread": "async def close(self): asyncio.ensure_future(asyncio.to_thread(threading.Event().wait))",
}
HANGING = """
import asyncio
import threading
from trunkline_server.app_state import State
{close}
State.close = close
"""


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes the clean-up hang of all processes that are started from now on. Returns a folder for one of them."""

    def prepare(how: str) -> Path:
        folder = tmp_path / how
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(HANGING.format(close=HANGS[how]))
        monkeypatch.setenv("PYTHONPATH", str(folder))
        return folder

    return prepare


def nobody(**server: Any) -> dict[str, Any]:
    """A configuration whose provider is never asked."""
    return {
        "server": server,
        "providers": [provider("p", "http://127.0.0.1:9")],
        "models": [model("m", "p")],
    }


def last_words(log: bytes) -> list[str]:
    """Why processes were ended."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith(b"{")]
    return [line["why"] for line in lines if line["event"] == "hard_stop"]


def catching(running: Gateway) -> list[bool]:
    """Does each worker listen for SIGTERM?"""
    parent = running.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    states = [Path(f"/proc/{child}/status").read_text() for child in children]
    masks = [int(state.partition("SigCgt:")[2].split()[0], 16) for state in states]
    return [bool(mask & 1 << (SIGTERM - 1)) for mask in masks]


async def until_page(address: str, status: int) -> None:
    """Waits until `/readyz` says this."""
    async with asyncio.timeout(10):
        while await page_at(address, "/readyz") != status:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", HANGS)
async def test_a_clean_up_that_hangs_is_ended_and_says_so(how: str, hanging: Any):
    async with gateway(hanging(how), **nobody(drain_s=0.5, lb_grace_s=0)) as running:
        since_s = monotonic()
        running.terminate()
        code = await running.exit_code(20)
        exit_s = monotonic() - since_s
        log = await running.log

    assert (code, last_words(log)) == (1, [f"not gone after {0.5 + HARD_STOP_S:g} s"])
    assert 0.5 + HARD_STOP_S <= exit_s < 0.5 + HARD_STOP_S + 2


async def test_workers_that_hang_end_themselves_before_they_are_killed(hanging: Any):
    asked = nobody(drain_s=0, lb_grace_s=0, workers=2)
    async with gateway(hanging("blocks"), **asked) as running:
        await until(lambda: catching(running) == [True] * 2, "both workers at work")
        running.terminate()
        code = await running.exit_code(20)
        log = await running.log

    assert (code, last_words(log)) == (1, [f"not gone after {HARD_STOP_S:g} s"] * 2)


async def test_a_third_signal_ends_a_process_that_hangs_at_once(hanging: Any):
    async with gateway(hanging("waits"), **nobody(drain_s=600, lb_grace_s=60)) as running:
        running.terminate()
        await until_page(running.http_address, 503)
        running.terminate()
        await until_page(running.http_address, 0)
        running.terminate()
        code = await running.exit_code(5)
        log = await running.log

    assert (code, last_words(log)) == (1, ["third signal"])


async def test_a_second_signal_hurries_the_rest_edge_alone_too(tmp_path: Path):
    async with draining(tmp_path, 20.0, streams=0) as found:
        command = ("-m", "trunkline_server", "shim", "--http", "127.0.0.1:0")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command, "--target", found.gateway.grpc_address),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
            address = line.partition("HTTP on ")[2].partition(",")[0]
            reader, writer = await asyncio.open_connection(*address.split(":"))
            writer.write(chat("m", "say mark-0", stream=True))
            assert await asyncio.wait_for(reader.readline(), 20) == b"HTTP/1.1 200 OK\r\n"
            process.send_signal(SIGTERM)
            await until_page(address, 0)
            assert process.returncode is None
            process.send_signal(SIGTERM)
            code = await asyncio.wait_for(process.wait(), 5)
            rest = await asyncio.wait_for(reader.read(), 5)
            writer.close()
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    assert code == 0
    assert b"[DONE]" not in rest
