"""The rows of the table: what is asked, of whom, and what is recorded.

A row is measured in rounds. In each the load runs against a gateway that is warm, and the gateway's
CPU time is read before and after; every request that was started is also finished, so that nothing
is paid for and not counted. The same load against the upstream itself gives the latency that the
gateway is not answerable for.
"""

import json
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from gateways import CannotMeasure, Gateway
from processes import build, cpu_s, machine_busy_s, resident_bytes
from yardstick import slowness_now

CHUNKS = 64  # The upstream's default.
CHUNK_BYTES = 6  # Of a word, the space included.
STREAM_MS = 200 + CHUNKS * 10  # Of a paced stream, its tail included.
HELD = 1000
WARM_UP_S = 1.0
LATE_S = 45.0  # How long after its time the load may take; it gives up before that itself.
SAMPLE_S = 0.05
SETTLE_S = 0.2  # Log lines and closes that follow the last answer.
HOLD_WAIT_S = 60.0


@dataclass(frozen=True)
class Target:
    """At most `limit` of a `Cost` attribute; `unit` says it in the table."""

    attribute: str
    limit: float
    unit: str


@dataclass(frozen=True)
class Row:
    """One kind of load.

    Attributes:
        model: the upstream's manner: `burst`, `paced` or `hold`; a unary answer has no manner.
        callers: how many ask at once.
        chunks: of the upstream's answers, streamed or not.
    """

    name: str
    is_grpc: bool
    is_stream: bool
    model: str
    callers: int
    targets: Sequence[Target] = ()
    chunks: int = CHUNKS


REQUEST, CHUNK, FIRST = "cpu_us_per_request", "cpu_us_per_chunk", "added_first_p99_ms"
CPU_COSTS = (REQUEST, CHUNK)
ROWS = (
    Row("rest-u1", False, False, "burst", 1, [Target(REQUEST, 120, "us/request")]),
    Row("rest-u16", False, False, "burst", 16, [Target(REQUEST, 120, "us/request")]),
    Row("rest-u64", False, False, "burst", 64),
    Row("rest-s64", False, True, "burst", 64, [Target(CHUNK, 12, "us/chunk")]),
    Row("rest-p20", False, True, "paced", 20),
    Row(
        "rest-p200",
        False,
        True,
        "paced",
        200,
        [Target(CHUNK, 20, "us/chunk"), Target(FIRST, 5, "ms first")],
    ),
    Row("grpc-u16", True, False, "burst", 16, [Target(REQUEST, 250, "us/request")]),
    Row("grpc-s64", True, True, "burst", 64),
    Row("grpc-p20", True, True, "paced", 20, [Target(CHUNK, 30, "us/chunk")]),
    Row(
        "grpc-p200",
        True,
        True,
        "paced",
        200,
        [Target(CHUNK, 30, "us/chunk"), Target(FIRST, 5, "ms first")],
    ),
    Row("rest-m1000", False, True, "hold", HELD, [Target("held_mb", 60, "MB")]),
    Row("grpc-m1000", True, True, "hold", HELD, [Target("held_mb", 60, "MB")]),
)


@dataclass(frozen=True)
class Load:
    """What one run of the load saw. Latencies in us, `p50` and `p99`; None: there were none."""

    requests: int
    errors: int
    first_error: str
    seconds: float
    content_chunks: int
    latency_us: Mapping[str, float] | None
    first_us: Mapping[str, float] | None


@dataclass(frozen=True)
class Round:
    """One run of the load and what the gateway spent on it.

    Attributes:
        foreign_cores: processors that were busy with neither gateway, upstream nor load.
        slowness: of the machine, as `yardstick` tells it.
    """

    load: Load
    cpu_s: float
    foreign_cores: float
    slowness: float

    @property
    def cpu_us_per_request(self) -> float:
        return self.cpu_s * 1e6 / max(self.load.requests, 1)


@dataclass(frozen=True)
class Cost:
    """A row's result: medians over the rounds, and for CPU also the spread."""

    row: str
    requests: int = 0
    errors: int = 0
    first_error: str = ""
    requests_per_s: float | None = None
    cpu_us_per_request: float | None = None
    cpu_us_per_request_rounds: Sequence[float] = ()
    cpu_us_per_chunk: float | None = None  # Of the upstream: 64 to a stream.
    slowness: float | None = None  # What CPU times are to be divided by for reference speed.
    messages_per_stream: float | None = None  # With text, as the caller gets them.
    added_p50_ms: float | None = None
    added_p99_ms: float | None = None
    added_first_p50_ms: float | None = None
    added_first_p99_ms: float | None = None
    idle_mb: float | None = None
    held_mb: float | None = None  # Above idle.
    foreign_cores: float = 0


def command(row: Row, *, port: int, gateway: Gateway | None, seconds: float) -> list[str]:
    """The load's command line; `gateway` None asks the upstream itself, over HTTP."""
    model = gateway.models.get(row.model, row.model) if gateway else row.model
    words = [
        str(build("load")),
        "--port",
        str(port),
        "--model",
        model,
        "--text-bytes",
        str(row.chunks * CHUNK_BYTES),
    ]
    words += ["--connections", str(row.callers), "--seconds", str(seconds)]
    if row.model == "hold":
        words += ["--hold", "--stagger-ms", "2000"]
    elif row.is_stream:
        words += ["--stream"]
    if row.model == "paced":
        words += ["--stagger-ms", str(STREAM_MS)]
    if gateway and row.is_grpc:
        words += ["--grpc"]
    if gateway and not row.is_grpc:
        words += ["--path", gateway.path]
        for header in gateway.headers:
            words += ["--header", header]
    return words


def port_of(row: Row, gateway: Gateway) -> int:
    if not row.is_grpc:
        return gateway.http_port
    if gateway.grpc_port is None:
        raise CannotMeasure("it has no gRPC port")
    return gateway.grpc_port


def run_load(words: Sequence[str], seconds: float) -> tuple[Load, float]:
    """What the load saw, and how slow the machine was meanwhile."""
    samples = [slowness_now()]
    ends_at_s = time.monotonic() + seconds + LATE_S
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        while process.poll() is None:
            time.sleep(SAMPLE_S)
            samples.append(slowness_now())
            if time.monotonic() > ends_at_s:
                process.kill()
        assert process.stdout is not None
        said = process.stdout.read()
    if process.returncode:
        raise CannotMeasure(f"{' '.join(words)} ended with {process.returncode}")
    return Load(**json.loads(said)), mean(samples)


def measure_direct(row: Row, upstream_port: int, seconds: float) -> Load:
    """The same load against the upstream itself."""
    load, _ = run_load(command(row, port=upstream_port, gateway=None, seconds=seconds), seconds)
    return load


def warm_up(row: Row, gateway: Gateway, seconds: float = WARM_UP_S) -> Load:
    load, _ = run_load(
        command(row, port=port_of(row, gateway), gateway=gateway, seconds=seconds), seconds
    )
    return load


def measure_round(row: Row, gateway: Gateway, pid: int, upstream_pid: int, seconds: float) -> Round:
    words = command(row, port=port_of(row, gateway), gateway=gateway, seconds=seconds)
    own_before_s, busy_before_s = own_cpu_s(upstream_pid), machine_busy_s()
    before_s, started_at_s = cpu_s(pid), time.monotonic()
    load, slowness = run_load(words, seconds)
    time.sleep(SETTLE_S)
    spent_s, elapsed_s = cpu_s(pid) - before_s, time.monotonic() - started_at_s
    foreign_s = (
        machine_busy_s() - busy_before_s - spent_s - (own_cpu_s(upstream_pid) - own_before_s)
    )
    return Round(load, spent_s, max(foreign_s, 0) / elapsed_s, slowness)


def own_cpu_s(upstream_pid: int) -> float:
    """CPU seconds of the upstream, of this process and of every load that has ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return cpu_s(upstream_pid) + time.process_time() + children.ru_utime + children.ru_stime


def measure_held(row: Row, gateway: Gateway, pid: int) -> Cost:
    """Memory with all streams open. The gateway should have served nothing but its warm-up.

    What earlier load has grown and freed would be there for the taking: too little would be seen.
    """
    idle = resident_bytes(pid)
    words = command(row, port=port_of(row, gateway), gateway=gateway, seconds=HOLD_WAIT_S)
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        time.sleep(1)
        held = resident_bytes(pid)
        said, _ = process.communicate(timeout=HOLD_WAIT_S)
    load = Load(**json.loads(said if line == "held\n" else line))
    return Cost(
        row=row.name,
        requests=load.requests,
        errors=load.errors,
        first_error=load.first_error,
        idle_mb=idle / 1e6,
        held_mb=(held - idle) / 1e6 if not load.errors else None,
    )


def cost(row: Row, rounds: Sequence[Round], direct: Load) -> Cost:
    """Fold a row's rounds: medians, and what they add to the upstream's own latency."""
    loads = [r.load for r in rounds]
    per_request = [r.cpu_us_per_request for r in rounds if r.load.requests]
    requests = sum(load.requests for load in loads)

    def middle(value: Callable[[Load], float]) -> float | None:
        answered = [load for load in loads if load.requests]
        return median(map(value, answered)) if answered else None

    def added_ms(which: str, percentile: str) -> float | None:
        own = getattr(direct, which)
        through = [latency[percentile] for load in loads if (latency := getattr(load, which))]
        return (median(through) - own[percentile]) / 1000 if own and through else None

    return Cost(
        row=row.name,
        requests=requests,
        errors=sum(load.errors for load in loads) + direct.errors,
        first_error=next((load.first_error for load in [*loads, direct] if load.first_error), ""),
        requests_per_s=middle(lambda load: load.requests / load.seconds),
        cpu_us_per_request=median(per_request) if per_request else None,
        cpu_us_per_request_rounds=per_request,
        cpu_us_per_chunk=median(per_request) / row.chunks
        if per_request and row.is_stream
        else None,
        messages_per_stream=middle(lambda load: load.content_chunks / load.requests)
        if row.is_stream
        else None,
        added_p50_ms=added_ms("latency_us", "p50"),
        added_p99_ms=added_ms("latency_us", "p99"),
        added_first_p50_ms=added_ms("first_us", "p50"),
        added_first_p99_ms=added_ms("first_us", "p99"),
        slowness=median(r.slowness for r in rounds),
        foreign_cores=max(r.foreign_cores for r in rounds),
    )
