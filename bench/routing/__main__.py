"""Judge routing policies, as bench/routing/README.md explains.

    python -m bench.routing [--tuning] [--policies NAME ...] [--worlds NAME ...] [--check POLICY] [--json FILE]

Prints a table and writes it as JSON. Exit code 1: the policy to check misses a limit in some world.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.routing.intervals import Interval
from bench.routing.policies import POLICIES
from bench.routing.verdicts import CLAIRVOYANT, Row, rows
from bench.routing.worlds import KINDS, RATE_PER_S, REQUESTS, TESTING_SEEDS, TUNING_SEEDS

BUILD: Final = Path("build") / "bench"
COLUMNS: Final = ("world", "policy", "regret ms", "felt ms", "ratio to static", "limit", "tries")
WIDTHS: Final = (16, 16, 24, 24, 24, 13, 5)
EXIT_MISSED: Final = 1


def main(words: Sequence[str]) -> int:
    arguments = parse(words)
    seeds = (TUNING_SEEDS if arguments.tuning else TESTING_SEEDS)[: arguments.runs]
    names = list(dict.fromkeys([*arguments.policies, *([arguments.check] * bool(arguments.check))]))
    use = "tuning" if arguments.tuning else "testing"
    print(
        f"{len(seeds)} runs of {arguments.requests} requests, {use} seeds {seeds[0]}-{seeds[-1]}; "
        "means and 95 % intervals"
    )
    print(line(COLUMNS))
    judged: list[Row] = []
    for kind in arguments.worlds:
        for row in rows(kind, names, seeds, arguments.requests, arguments.rate):
            judged.append(row)
            print(line(list(cells(row))), flush=True)
    path = arguments.json or BUILD / f"routing-{use}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report(arguments, seeds, judged), indent=1) + "\n")
    return verdict(arguments.check, judged) if arguments.check else 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description="Judge policies.")
    parser.add_argument(
        "--tuning", action="store_true", help="the seeds to tune with, not those to judge by"
    )
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--worlds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--check", choices=POLICIES, help="fail unless it keeps to the limits")
    parser.add_argument("--runs", type=int, choices=range(1, 11), default=10)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of one run")
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="requests per second")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(words)


def line(texts: Sequence[str]) -> str:
    first, second, *others = zip(texts, WIDTHS, strict=True)
    left = "  ".join(text.ljust(width) for text, width in (first, second))
    return "  ".join([left, *(text.rjust(width) for text, width in others)]).rstrip()


def cells(row: Row) -> Iterator[str]:
    yield row.world
    yield row.policy
    if row.policy == CLAIRVOYANT:
        yield from (f"(loss {1e3 * row.loss_s.mean:.0f} ms)", "", "", "", f"{row.attempts:.2f}")
        return
    yield interval(row.regret_s, 1e3, 1)
    yield interval(row.felt_regret_s, 1e3, 1)
    yield interval(row.ratio, 1, 3)
    surely = "ok" if row.passes_surely else "unsure" if row.passes else "MISS"
    yield f"<= {row.max_ratio} {surely}"
    yield f"{row.attempts:.2f}"


def interval(of: Interval, scale: float, digits: int) -> str:
    if math.isinf(of.low) or math.isinf(of.high):
        return f"{scale * of.mean:.{digits}f}"
    ends = f"{scale * of.low:.{digits}f}..{scale * of.high:.{digits}f}"
    return f"{scale * of.mean:.{digits}f} ({ends})"


def report(
    arguments: argparse.Namespace, seeds: Sequence[int], judged: Sequence[Row]
) -> dict[str, object]:
    return {
        "seeds": list(seeds),
        "requests": arguments.requests,
        "rate_per_s": arguments.rate,
        "rows": [
            {
                **asdict(row),
                "max_ratio": row.max_ratio,
                "passes": row.passes,
                "passes_surely": row.passes_surely,
            }
            for row in judged
        ],
    }


def verdict(policy: str, judged: Sequence[Row]) -> int:
    """Prints how the policy did, by its means and by the upper ends of its intervals. The means decide."""
    own = [row for row in judged if row.policy == policy]
    missed = [row.world for row in own if not row.passes]
    unsure = [row.world for row in own if not row.passes_surely]
    for measure, worlds in (("mean ratio", missed), ("upper bound", unsure)):
        print(f"{policy} by {measure}: {'MISSED in ' + ', '.join(worlds) if worlds else 'ok'}")
    return EXIT_MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
