"""Measure this checkout against another commit: what did a change cost or save?

    python bench/compare.py BASE [--rows rest-u16 rest-p200] [--seconds 4] [--rounds 5] [--starts 3]
                                 [--this trunkline_accounts]

BASE is checked out into a temporary worktree. Both services run side by side, with the same
interpreter and the same dependencies, and are asked in turn, base, this, this, base, so that a
machine that becomes slower is slower for both. And both are started anew `--starts` times: where a
process happens to lie in memory makes it some percent faster or slower for as long as it lives, and
no number of rounds averages that out.

Prints this/base, below 1 is cheaper: of each start the median of its rounds, and of these the median
and the spread. `more us` is the difference at the reference's speed (`yardstick.py`). A ratio whose
spread holds 1.0 says nothing. BASE=HEAD on a clean checkout shows the noise. With
`--this trunkline_accounts` this side keeps accounts, and BASE=HEAD tells what they cost.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from gateways import Gateway
from processes import build, upstream, wait_until_quiet
from rows import CHUNKS, Round, Row, measure_round, warm_up
from run import CHECKOUT, add_arguments, chosen, gateway_of, git, run_to_end

ROWS = ("rest-u16", "rest-s64", "rest-p200", "grpc-u16", "grpc-s64", "grpc-p200")
HEADINGS = ("base us", "this us", "this/base", "spread", "more us", "first ms p50", "other")


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """The commit's files, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as parent:
        folder = Path(parent) / "base"
        git(["worktree", "add", "--detach", str(folder), commit])
        try:
            yield folder
        finally:
            git(["worktree", "remove", "--force", str(folder)])


def measure(
    row: Row, sides: Sequence[tuple[Gateway, int]], upstream_pid: int, options: argparse.Namespace
) -> list[list[Round]]:
    """Both sides in turn: for each round base and this."""
    for described, _ in sides:
        warm_up(row, described)
    pairs: list[list[Round]] = []
    for number in range(options.rounds):
        wait_until_quiet()
        turn = [
            measure_round(row, described, pid, upstream_pid, options.seconds)
            for described, pid in (sides if number % 2 == 0 else reversed(sides))
        ]
        pairs.append(turn if number % 2 == 0 else turn[::-1])
    return pairs


def summary(row: Row, starts: Sequence[Sequence[Sequence[Round]]]) -> tuple[str, bool]:
    """One line of the table from the rounds of each start, and whether all went well."""
    pairs = [both for rounds in starts for both in rounds]
    errors = [r.load.first_error for both in pairs for r in both if r.load.errors]
    if errors:
        return f"{row.name:<11} {len(errors)} rounds with ERRORS, the first: {errors[0]}", False
    units = CHUNKS if row.is_stream else 1
    base_us, this_us = (
        median(both[side].cpu_us_per_request / units for both in pairs) for side in (0, 1)
    )
    ratios = sorted(
        median(this.cpu_us_per_request / base.cpu_us_per_request for base, this in rounds)
        for rounds in starts
    )
    spread = f"{ratios[0]:.3f} - {ratios[-1]:.3f}"
    first = " / ".join(first_ms(row, [both[side] for both in pairs]) for side in (0, 1))
    other = max(r.foreign_cores for both in pairs for r in both)
    ratio = f"{median(ratios):.3f}"
    # At the speed that targets are stated for: a slow machine would show a larger difference.
    more_us = median(
        this.cpu_us_per_request / this.slowness - base.cpu_us_per_request / base.slowness
        for base, this in pairs
    )
    cells = (f"{base_us:,.1f}", f"{this_us:,.1f}", ratio, spread, f"{more_us / units:,.1f}", first)
    return line(row.name, (*cells, f"{other:.2f}")), True


def line(name: str, cells: Sequence[str]) -> str:
    widths = (9, 9, 10, 15, 8, 15, 6)
    return f"{name:<11} " + " ".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True))


def first_ms(row: Row, rounds: Sequence[Round]) -> str:
    """Median time to the first text, or to all of a unary answer; the upstream's own included."""
    latencies = [r.load.first_us or r.load.latency_us for r in rounds]
    return f"{median(latency['p50'] for latency in latencies if latency) / 1000:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base", metavar="BASE", help="a commit, branch or tag")
    parser.add_argument("--this", default="trunkline", metavar="GATEWAY", help="of this side")
    parser.add_argument("--starts", type=int, default=3, help="of both services, default 3")
    add_arguments(parser, ROWS, rounds=5)
    options = parser.parse_args()
    rows = [row for row in chosen(options.rows) if row.model != "hold"]
    build("load")
    found: dict[str, list[list[list[Round]]]] = {row.name: [] for row in rows}
    with ExitStack() as stack:
        base = stack.enter_context(worktree(options.base))
        upstream_pid, upstream_port = stack.enter_context(upstream())
        for _ in range(max(1, options.starts)):
            with ExitStack() as started:
                sides = [
                    started.enter_context(gateway_of(name, upstream_port, checkout))
                    for name, checkout in (("trunkline", base), (options.this, CHECKOUT))
                ]
                for row in rows:
                    found[row.name].append(measure(row, sides, upstream_pid, options))
    print("us of service CPU, for a request or, in streams, for a chunk")
    print(line("row", HEADINGS))
    lines = [summary(row, found[row.name]) for row in rows]
    print("\n".join(text for text, _ in lines), flush=True)
    return 0 if all(is_good for _, is_good in lines) else 1


if __name__ == "__main__":
    run_to_end(main)
