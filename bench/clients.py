"""Measure our clients: messages a second, and CPU a message, beside the raw generated stub of the same library.

    python bench/clients.py [CLIENT ...] [--rounds 7] [--seconds 1.0] [--warm-up 3.0]

Each client reads whole streams of a gateway that plays a script, one after the other, from one connection: once with
its own layer, which iterates the events and can fold them afterwards, and once with the stub that was generated. Both
are in one process, in turn, layer, stub, stub, layer, so that a machine that becomes slower is slower for both. CPU is
that of the client's whole process, its library's threads and its collector included.

Prints layer/stub, the median of the rounds and their spread. Exit code 1: a layer adds more than 15 %.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from run import machine

from tests.conformance.languages import COLUMNS, ROOT, Column, Runner

CASES = Path(__file__).resolve().parent / "client_cases"
CASE = "a-long-stream"
MOST_RATIO = 1.15
LIMIT_S = 120.0


@dataclass(frozen=True)
class Reading:
    """What one process did in one turn."""

    messages: int
    elapsed_s: float
    cpu_s: float

    @property
    def messages_per_s(self) -> float:
        return self.messages / self.elapsed_s

    @property
    def cpu_us(self) -> float:
        """Of one message."""
        return self.cpu_s / self.messages * 1e6


@contextmanager
def gateway() -> Iterator[str]:
    """The address of a scripted gateway in a process of its own."""
    command = [sys.executable, "-m", "tests.conformance.server", str(CASES)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def read(runner: Runner, target: str, api: str, seconds: float) -> Reading:
    """One turn.

    Raises:
        RuntimeError: the client could not.
    """
    order: dict[str, Any] = {
        "name": CASE,
        "client": {"target": target, "metadata": {"x-case": CASE}},
        "call": {"method": "bench", "api": api, "seconds": seconds},
    }
    told = runner.ask(order, LIMIT_S)
    if told.get("crash") or told.get("error"):
        raise RuntimeError(told.get("crash") or told["error"])
    return Reading(told["messages"], told["elapsed_s"], told["cpu_s"])


def measure(
    column: Column, target: str, options: argparse.Namespace
) -> list[tuple[Reading, Reading]]:
    """For each round the layer and the stub."""
    rounds = []
    with Runner(column) as runner:
        for api in ("client", "stub"):
            read(runner, target, api, options.warm_up)
        for number in range(options.rounds):
            order = ("client", "stub") if number % 2 == 0 else ("stub", "client")
            turn = {api: read(runner, target, api, options.seconds) for api in order}
            rounds.append((turn["client"], turn["stub"]))
    return rounds


def show(column: Column, rounds: list[tuple[Reading, Reading]]) -> float:
    """Prints one row, and gives its ratio."""
    ratios = sorted(layer.cpu_us / stub.cpu_us for layer, stub in rounds)
    ratio = median(ratios)
    layer_us, stub_us = (median(turn[side].cpu_us for turn in rounds) for side in (0, 1))
    layer_rate, stub_rate = (
        median(turn[side].messages_per_s for turn in rounds) for side in (0, 1)
    )
    print(
        f"{column.name:<15} {layer_rate:>10,.0f} {stub_rate:>10,.0f} {layer_us:>9.2f} {stub_us:>9.2f}"
        f" {ratio:>10.3f}   {ratios[0]:.3f} - {ratios[-1]:.3f}",
        flush=True,
    )
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [column.name for column in COLUMNS]
    parser.add_argument(
        "clients", nargs="*", metavar="CLIENT", help=f"of {', '.join(names)}; else all"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of reading in a turn")
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds for each of both")
    options = parser.parse_args()
    if unknown := set(options.clients) - set(names):
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(
        f"{'client':<15} {'messages/s':>10} {'stub':>10} {'CPU us':>9} {'stub':>9} {'layer/stub':>10}   spread"
    )
    ratios = []
    with gateway() as target:
        for column in COLUMNS:
            if options.clients and column.name not in options.clients:
                continue
            if missing := column.language.missing_tools:
                print(f"{column.name:<15} not measured: {', '.join(missing)} not found")
                continue
            for command in column.language.build:
                column.language.run(command)
            ratios.append(show(column, measure(column, target, options)))
    return 0 if all(ratio <= MOST_RATIO for ratio in ratios) else 1


if __name__ == "__main__":
    sys.exit(main())
