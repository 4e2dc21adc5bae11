"""Measure panels: how long their callers wait when a proposer hangs, and the CPU that a member costs.

    python bench/panels.py [waits] [cost] [--requests 200] [--rate 16] [--rounds 5] [--seconds 0.5]

`panel_waits.py` and `panel_costs.py` say how each is measured, docs/benchmarks.md what it means. Exit code 1: a target
is missed; 2: something that the run needs is missing.
"""

import argparse
import asyncio
from functools import partial

import panel_costs
import panel_waits
from processes import build, upstream
from run import gateway_of, machine, run_to_end

NAME = "trunkline_panels"
PARTS = ("waits", "cost")
MIN_REQUESTS = 50  # Of fewer a p95 is hardly more than the longest.


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{' or '.join(PARTS)}; else both")
    parser.add_argument(
        "--requests", type=int, default=200, help="of each panel, of those that wait (%(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=16, help="requests/s of all those (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of the cost (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="of load in a round (%(default)s)"
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if options.requests < MIN_REQUESTS:
        parser.error(f"--requests: at least {MIN_REQUESTS}")
    if options.rounds < 1 or options.rate <= 0 or options.seconds <= 0:
        parser.error("numbers must be above 0")
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    build("load")
    reached = [
        waits(options.requests, options.rate) if part == "waits" else cost(options)
        for part in PARTS
        if part in (options.parts or PARTS)
    ]
    return 0 if all(reached) else 1


def waits(requests: int, rate: float) -> bool:
    words = ("--chunks", str(panel_waits.CHUNKS), "--gap-ms", str(panel_waits.GAP_MS))
    with upstream(*words) as (_, port), gateway_of(NAME, port) as (described, _):
        found = asyncio.run(panel_waits.measure(described.http_port, requests, rate))
    print()
    return panel_waits.show(found, partial(print, flush=True))


def cost(options: argparse.Namespace) -> bool:
    print()
    words = ("--chunks", str(panel_costs.CHUNKS))
    with upstream(*words) as (upstream_pid, port), gateway_of(NAME, port) as (described, pid):
        found = panel_costs.measure(described, pid, upstream_pid, options.rounds, options.seconds)
    return panel_costs.show(found, partial(print, flush=True))


if __name__ == "__main__":
    run_to_end(main)
