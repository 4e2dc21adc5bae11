"""Measure what a gateway costs: CPU, latency and memory, as docs/benchmarks.md explains.

    python bench/run.py [--rows 'rest-*'] [--gateways trunkline nginx] [--seconds 4] [--rounds 3]
                        [--json FILE]

Prints one table for each gateway. Exit code 1: a row had errors; 2: something that the run needs is
missing.
"""

import argparse
import fnmatch
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import decision
from gateways import CannotMeasure, Gateway, Place, gateway
from processes import BENCH, QUIET_CORES, build, resident_bytes, running, upstream, wait_until_quiet
from rows import ROWS, Cost, Load, Row, cost, measure_direct, measure_held, measure_round, warm_up
from table import heading, show

CHECKOUT = BENCH.parent


@contextmanager
def gateway_of(
    name: str, upstream_port: int, checkout: Path = CHECKOUT
) -> Iterator[tuple[Gateway, int]]:
    """A gateway that runs in a folder of its own: how to ask it, and its pid."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        described = gateway(name, Place(Path(folder), upstream_port, checkout))
        with running(described, Path(folder) / "log") as pid:
            yield described, pid


class Run:
    """Rows of gateways against one upstream. What the upstream takes itself is measured once."""

    def __init__(self, upstream_pid: int, upstream_port: int, seconds: float, rounds: int) -> None:
        self._upstream_pid = upstream_pid
        self._upstream_port = upstream_port
        self._seconds = seconds
        self._rounds = rounds
        self._direct: dict[tuple[bool, str, int], Load] = {}

    def measure(self, name: str, rows: Sequence[Row]) -> Iterator[Cost]:
        """One cost for each row that the gateway can answer, in order."""
        loaded = [row for row in rows if row.model != "hold"]
        if loaded:
            with gateway_of(name, self._upstream_port) as (described, pid):
                print(f"{name}: {resident_bytes(pid) / 1e6:.0f} MB resident when ready")
                for row in filter(lambda row: can_answer(described, row), loaded):
                    yield self._measure_row(row, described, pid)
                print(f"{name}: {resident_bytes(pid) / 1e6:.0f} MB resident after these rows")
        for row in rows:
            if row.model == "hold":
                with gateway_of(name, self._upstream_port) as (described, pid):
                    if can_answer(described, row):
                        for warming in ROWS:
                            if warming.is_grpc == row.is_grpc and warming.callers == 16:
                                warm_up(warming, described)
                        yield measure_held(row, described, pid)

    def _measure_row(self, row: Row, described: Gateway, pid: int) -> Cost:
        warmed = warm_up(row, described)
        if not warmed.requests:
            return Cost(row.name, errors=warmed.errors, first_error=warmed.first_error)
        direct = self._measure_direct(row)
        rounds = []
        for _ in range(self._rounds):
            wait_until_quiet()
            rounds.append(measure_round(row, described, pid, self._upstream_pid, self._seconds))
        return cost(row, rounds, direct)

    def _measure_direct(self, row: Row) -> Load:
        key = (row.is_stream, row.model, row.callers)
        if key not in self._direct:
            wait_until_quiet()
            self._direct[key] = measure_direct(row, self._upstream_port, self._seconds)
        return self._direct[key]


def can_answer(described: Gateway, row: Row) -> bool:
    return not row.is_grpc or described.grpc_port is not None


def machine() -> dict[str, str]:
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = processor[1] if processor else platform.machine()
    try:
        commit = git(["describe", "--always", "--dirty"])
    except CannotMeasure:  # A source archive.
        commit = "unknown"
    return {
        "commit": commit,
        "python": platform.python_version(),
        "processor": f"{len(os.sched_getaffinity(0))} cores of {name}",
        "kernel": platform.release(),
    }


def git(words: Sequence[str]) -> str:
    """What a git command on the checkout prints.

    Raises:
        CannotMeasure: it failed, or there is no git.
    """
    program = shutil.which("git")
    if program is None:
        raise CannotMeasure("git is not on the PATH")
    result = subprocess.run([program, "-C", CHECKOUT, *words], capture_output=True, text=True)
    if result.returncode:
        raise CannotMeasure(f"git {' '.join(words)}: {result.stderr.strip()}")
    return result.stdout.strip()


def chosen(patterns: Sequence[str]) -> list[Row]:
    """The rows that match any pattern.

    Raises:
        CannotMeasure: none does.
    """
    rows = [row for row in ROWS if matches(row.name, patterns)]
    if not rows and not matches(decision.NAME, patterns):
        names = [*(row.name for row in ROWS), decision.NAME]
        raise CannotMeasure(f"no such row; rows: {', '.join(names)}")
    return rows


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def add_arguments(parser: argparse.ArgumentParser, rows: Sequence[str], rounds: int) -> None:
    parser.add_argument(
        "--rows", nargs="+", default=list(rows), metavar="PATTERN", help="rows by name, * matches"
    )
    parser.add_argument(
        "--seconds", type=float, default=4, help="of load in a round (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="of each row (default: %(default)s)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser, ["*"], rounds=3)
    parser.add_argument(
        "--gateways", nargs="+", default=["trunkline"], help="files in bench/gateways"
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    rows = chosen(options.rows)
    results: dict[str, list[Cost]] = {}
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    deciding = decision.measure(options.rounds) if matches(decision.NAME, options.rows) else None
    if deciding is not None:
        print(f"\n{decision.show(deciding)}", flush=True)
    if rows:
        results = measured_gateways(rows, options)
    every = [measured for costs in results.values() for measured in costs]
    if any(measured.foreign_cores > QUIET_CORES for measured in every):
        print('\nOther processes kept the machine busy ("other", in cores); it shows.')
    if options.json:
        report = {
            **facts,
            "gateways": {name: [asdict(c) for c in costs] for name, costs in results.items()},
            "decision": asdict(deciding) if deciding is not None else None,
        }
        options.json.write_text(json.dumps(report, indent=2))
    return 1 if any(measured.errors for measured in every) else 0


def measured_gateways(rows: Sequence[Row], options: argparse.Namespace) -> dict[str, list[Cost]]:
    """All rows of all gateways, printed as they come."""
    build("load")
    results: dict[str, list[Cost]] = {}
    with upstream() as (upstream_pid, upstream_port):
        run = Run(upstream_pid, upstream_port, options.seconds, options.rounds)
        for name in options.gateways:
            print(f"\n{heading()}")
            results[name] = []
            for measured in run.measure(name, rows):
                row = next(row for row in rows if row.name == measured.row)
                print(show(row, measured, is_ours=name == "trunkline"), flush=True)
                results[name].append(measured)
    return results


def run_to_end(main: Callable[[], int]) -> NoReturn:
    """Call `main`, exit with its code. On SIGTERM too, all that was started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    run_to_end(main)
