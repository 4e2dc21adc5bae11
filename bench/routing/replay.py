"""The policy at work: the whole gateway over real sockets, in a simulated world's weather.

    python -m bench.routing.replay [--worlds NAME ...] [--seeds N ...] [--requests 2000] [--speed 20]

Scripted providers on loopback take as long, and fail as often, as the world says of each pair of request and candidate.
The requests come at the world's arrivals; the gateway is told nothing but the scoring run. Time runs `speed` times
faster than outside, for the gateway, its timers and its providers alike: they share an event loop whose clock does.

Regrets are computed as in the simulation, from the order in which each request's candidates were, or would have been,
tried. Beside them stand those of the same policy in the simulation. The gateway's own overhead, some milliseconds for a
request, is `speed` times as long in the world's time, and falls on all candidates alike.
"""

import argparse
import asyncio
import json
import selectors
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import grpc
import msgspec
import structlog

from bench.routing.policies import POLICIES, briefing
from bench.routing.simulate import simulate
from bench.routing.verdicts import MAX_RATIO, MAX_RATIO_STATIONARY, ranking_loss_s
from bench.routing.worlds import KINDS, TESTING_SEEDS, TIMEOUT_S, World, world
from trunkline.v1.completion_service_pb2 import CompleteRequest, PreviewRouteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    OptimizeFor,
    RoutingConstraints,
    RoutingIntent,
)
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.app import Service, build, running
from trunkline_server.config import Settings
from trunkline_server.edges.rest.http import batches_of
from trunkline_server.routing.scoring_run import DataSet, ScoringRun, Timing, encoded, sealed

MODEL: Final = "model"
MAX_ATTEMPTS: Final = 5
EXIT_MISSED: Final = 1
REFUSAL: Final = b'{"error":{"message":"out of order","type":"server_error"}}'
ANSWER: Final = b"".join(
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[%b]}\n\n' % c
    for c in (
        b'{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}',
        b'{"index":0,"delta":{},"finish_reason":"stop"}',
    )
) + b"data: [DONE]\n\n"  # fmt: skip


class FastSelector(selectors.DefaultSelector):
    """Waits for a fraction of the time that it is told to."""

    speed = 1.0

    def select(self, timeout: float | None = None) -> Any:
        """As of the base class."""
        return super().select(None if timeout is None else timeout / self.speed)


class FastLoop(asyncio.SelectorEventLoop):
    """Its clock runs `speed` times as fast as the machine's, and so do all timers."""

    def __init__(self, speed: float) -> None:
        selector = FastSelector()
        selector.speed = speed
        self._speed = speed
        super().__init__(selector)

    def time(self) -> float:
        """Seconds of the world."""
        return super().time() * self._speed


@dataclass(frozen=True, slots=True)
class Replayed:
    """Of one world. Regrets in seconds per request; `failed` requests got no answer."""

    kind: str
    seed: int
    requests: int
    failed: int
    regret_s: float
    static_s: float
    simulated_s: float

    @property
    def ratio(self) -> float:
        """Of the regret to a static ranking's."""
        return self.regret_s / self.static_s

    @property
    def limit(self) -> float:
        return MAX_RATIO_STATIONARY if KINDS[self.kind].is_stationary else MAX_RATIO


@asynccontextmanager
async def provider(place: World, candidate: int) -> AsyncIterator[str]:
    """Its URL. What a request is, it says itself: its text is its number."""

    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                request = int(body["messages"][-1]["content"])
                row = request * len(place.offers) + candidate
                took_s, failed = place.elapsed_s[row], bool(place.failed[row])
                if failed and took_s >= TIMEOUT_S:
                    await reader.read(1)  # Silent until the gateway has had enough.
                    return
                await asyncio.sleep(took_s)
                status, kind, answer = b"200 OK", b"text/event-stream", ANSWER
                if failed:
                    status, kind, answer = b"500 No", b"application/json", REFUSAL
                writer.write(
                    b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
                    % (status, kind, len(answer), answer)
                )
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            serving.discard(asyncio.current_task())
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        # The gateway has closed its connections by now.
        if left := [task for task in serving if task is not None]:
            await asyncio.wait(left, timeout=TIMEOUT_S)


def provider_id(candidate: int) -> str:
    """As the configuration calls it."""
    return f"provider-{candidate}"


def scoring_run(place: World) -> ScoringRun:
    """What the gateway is told beforehand."""
    timings = [
        Timing(
            f"{provider_id(i)}/{MODEL}",
            [seconds * 1_000 for seconds in place.scorings[0][offer.name].latencies_s],
            place.scorings[0][offer.name].failures,
        )
        for i, offer in enumerate(place.offers)
    ]
    run = ScoringRun(
        time="2026-01-01T00:00:00Z",
        data_set=DataSet(f"world {place.kind} {place.seed}", "0" * 64),
        judge="none",
        cells=[],
        timings=timings,
    )
    return sealed(run)


@asynccontextmanager
async def gateway(place: World, folder: Path) -> AsyncIterator[Service]:
    """Over the world's providers."""
    path = folder / "scores.json"
    path.write_bytes(encoded(scoring_run(place)))
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(provider(place, i)) for i in range(len(place.offers))
        ]
        tree = {
            "server": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
            "local": {"enabled": False},
            "scoring": {"file": str(path)},
            "providers": [
                {
                    "id": provider_id(i),
                    "dialect": "openai",
                    "base_url": url,
                    "first_token_timeout_s": TIMEOUT_S,
                }
                for i, url in enumerate(urls)
            ],
            "models": [{"id": MODEL, "provider": provider_id(i)} for i in range(len(urls))],
        }
        settings = msgspec.convert(tree, Settings)
        quiet = structlog.make_filtering_bound_logger("critical")
        log = structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=quiet)
        yield await stack.enter_async_context(running(settings, build(settings, {}), log))


async def ask(stub: Any, number: int) -> tuple[list[int], bool]:
    """One request: the order of its candidates, and whether it was answered."""
    request_id = f"request-{number:06d}"
    spec = CompletionSpec(
        model=MODEL,
        messages=[Message(role=Role.ROLE_USER, parts=[Part(text=str(number))])],
        intent=RoutingIntent(optimize_for=OptimizeFor.OPTIMIZE_FOR_LATENCY),
        constraints=RoutingConstraints(max_attempts=MAX_ATTEMPTS),
    )
    tried: list[str] = []
    answered = False
    call = stub.Complete(CompleteRequest(spec=spec), metadata=[("x-request-id", request_id)])
    try:
        async with aclosing(batches_of(call)) as batches:
            async for batch in batches:
                for event in batch:
                    if event.HasField("completed"):
                        tried = [a.provider for a in event.completed.completion.attempts]
                        answered = True
    except grpc.aio.AioRpcError:
        pass  # Every candidate has failed, and that happens here.
    found = await stub.PreviewRoute(PreviewRouteRequest(request_id=request_id))
    order = [*tried, *(c.provider for c in found.candidates)]
    return [int(name.rpartition("-")[2]) for name in dict.fromkeys(order)], answered


async def replay(place: World, folder: Path) -> tuple[float, int]:
    """Expected loss of a request in seconds, and how many were not answered."""
    loop = asyncio.get_running_loop()
    async with gateway(place, folder) as service:
        channel: Any = service.channel
        stub = CompletionServiceStub(channel)
        start_s = loop.time()

        async def one(number: int, arrival_s: float) -> tuple[float, bool]:
            await asyncio.sleep(max(0.0, start_s + arrival_s - loop.time()))
            order, answered = await ask(stub, number)
            return place.moment(arrival_s).expected_loss_s(order), answered

        found = await asyncio.gather(*(one(i, at_s) for i, at_s in enumerate(place.arrivals_s)))
    return fmean(loss_s for loss_s, _ in found), sum(not answered for _, answered in found)


def replayed(kind: str, seed: int, requests: int, speed: float) -> Replayed:
    """One world, at work and in the simulation."""
    place = world(kind, seed, requests)
    with tempfile.TemporaryDirectory() as folder:
        loop = FastLoop(speed)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            loss_s, failed = runner.run(replay(place, Path(folder)))
    best_s = fmean(
        place.moment(at_s).expected_loss_s(place.moment(at_s).best) for at_s in place.arrivals_s
    )
    simulated = simulate(place, POLICIES["thompson"](briefing(place)))
    return Replayed(
        kind,
        seed,
        requests,
        failed,
        regret_s=loss_s - best_s,
        static_s=ranking_loss_s(place) - best_s,
        simulated_s=simulated.expected_loss_s - best_s,
    )


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.routing.replay")
    parser.add_argument("--worlds", nargs="+", choices=KINDS, default=["drifting", "outages"])
    parser.add_argument("--seeds", nargs="+", type=int, default=TESTING_SEEDS[:2])
    parser.add_argument("--requests", type=int, default=2_000, help="of each run")
    parser.add_argument("--speed", type=float, default=20.0, help="of time")
    options = parser.parse_args(words)
    columns = ("world", "seed", "requests", "failed", "regret ms", "static ms", "ratio", "limit")
    print(line([*columns, "ratio simulated"]))
    missed = False
    for kind in options.worlds:
        runs = [replayed(kind, seed, options.requests, options.speed) for seed in options.seeds]
        for run in runs:
            print(line(cells(run)), flush=True)
        ratio = fmean(run.regret_s for run in runs) / fmean(run.static_s for run in runs)
        print(f"{kind}: {ratio:.3f} of a static ranking's regret, over all runs", flush=True)
        missed |= ratio > runs[0].limit
    return EXIT_MISSED if missed else 0


def cells(run: Replayed) -> list[str]:
    """Of its line."""
    return [
        run.kind,
        str(run.seed),
        str(run.requests),
        str(run.failed),
        f"{run.regret_s * 1_000:.1f}",
        f"{run.static_s * 1_000:.1f}",
        f"{run.ratio:.3f}",
        f"{run.limit:g}",
        f"{run.simulated_s / run.static_s:.3f}",
    ]


def line(cells: Sequence[str]) -> str:
    return f"{cells[0]:<17}" + " ".join(f"{cell:>10}" for cell in cells[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
