"""The processes of a run: compiling the C tools, starting, watching and stopping.

What a gateway costs is the CPU time of its process and all that descend from it, every thread, user
and system: the kernel's own account of run time, which `/proc/<pid>/stat` shows in ticks of 10 ms
and the process CPU clock in ns.
"""

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateways import CannotMeasure, Gateway

BENCH = Path(__file__).resolve().parent
BUILD = BENCH.parent / "build" / "bench"
SOURCES = {"upstream": ["upstream.c"], "load": ["load.c", "load_rest.c", "load_grpc.c"]}
READY_S = 60.0
STOP_S = 15.0
QUIET_CORES = 0.1
QUIET_WAIT_S = 10.0
CPUCLOCK_SCHED = 2


def build(name: str) -> Path:
    """Compile a C tool where it is older than its source. Returns the program.

    Raises:
        CannotMeasure: no compiler, or it failed.
    """
    program = BUILD / name
    newest_s = max(source.stat().st_mtime for source in BENCH.glob("*.[ch]"))
    if program.exists() and program.stat().st_mtime > newest_s:
        return program
    compiler = next(
        filter(None, map(shutil.which, [os.environ.get("CC", "cc"), "gcc", "clang"])), None
    )
    if compiler is None:
        raise CannotMeasure(
            "the upstream and the load are C programs and no C compiler was found. Install one "
            "(Debian: apt install gcc libc6-dev; Fedora: dnf install gcc; Alpine: apk add gcc "
            "musl-dev linux-headers), or name one in CC."
        )
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [
        compiler,
        "-O2",
        "-o",
        str(program),
        *(str(BENCH / source) for source in SOURCES[name]),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise CannotMeasure(f"{' '.join(command)} failed:\n{result.stderr}")
    return program


@contextmanager
def upstream(*words: str) -> Iterator[tuple[int, int]]:
    """A running upstream: its pid and its port. Args: words: options of its command line."""
    process = subprocess.Popen([build("upstream"), *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        stop(process)


@contextmanager
def running(gateway: Gateway, log: Path) -> Iterator[int]:
    """A gateway that is ready: its pid. What it prints goes to `log`, as a service's would.

    Raises:
        CannotMeasure: it ended, or was not ready in time.
    """
    environment = {**os.environ, **gateway.environment}
    with log.open("wb") as output:
        process = subprocess.Popen(
            gateway.command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{gateway.http_port}{gateway.ready_path}", log)
        yield process.pid
    finally:
        stop(process)


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends_at_s = time.monotonic() + READY_S
    while time.monotonic() < ends_at_s:
        if process.poll() is not None:
            raise CannotMeasure(f"the gateway ended with {process.returncode}:\n{tail(log)}")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except OSError:  # Refused, or a status that says not yet.
            time.sleep(0.1)
    raise CannotMeasure(
        f"the gateway did not answer 200 at {url} within {READY_S:.0f} s:\n{tail(log)}"
    )


def tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        for pid in family(process.pid):
            os.kill(pid, 9)
        process.wait(STOP_S)


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # It has ended meanwhile.
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    members = [pid]
    for member in members:
        members.extend(children.get(member, []))
    return members


def cpu_s(pid: int) -> float:
    """CPU seconds that the process and its descendants have used, all threads, user and system."""
    return sum(time.clock_gettime(~member << 3 | CPUCLOCK_SCHED) for member in family(pid))


def resident_bytes(pid: int) -> int:
    """Resident memory of the process and its descendants; shared pages count once for each."""
    pages = sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def machine_busy_s() -> float:
    """CPU seconds that all processors together have not been idle since boot, in ticks of 10 ms."""
    # user nice system idle iowait irq softirq; guests are part of user.
    ticks = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:8]]
    return (sum(ticks[:3]) + sum(ticks[5:])) / os.sysconf("SC_CLK_TCK")


def wait_until_quiet() -> None:
    """Wait until hardly anything else runs on this machine, or for QUIET_WAIT_S at most."""
    ends_at_s = time.monotonic() + QUIET_WAIT_S
    while time.monotonic() < ends_at_s:
        before_s, started_at_s = machine_busy_s(), time.monotonic()
        time.sleep(0.5)
        if (machine_busy_s() - before_s) / (time.monotonic() - started_at_s) < QUIET_CORES:
            return
