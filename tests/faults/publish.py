"""Writes the table of faults in docs/reliability.md.

    .venv/bin/python -m tests.faults.publish

Each kind of fault, in each dialect: so many streams, one after the other, each at a model of its own, over a faulty
provider and one that is well. What their callers saw, how long it took, what the providers said it took, and what the
gateway counted. Dialects that do the same share a row.
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Final

import uvloop

from tests.faults.callers import Callers, callers, spec
from tests.faults.fleet import fleet, route
from tests.faults.kinds import BY_PHASE, FAULTY, HEALTHY, SILENCE_S, Kind
from tests.faults.stamp import ROOT, Stamp
from tests.faults.wires import WIRES, pieces, said
from trunkline.v1.completion_pb2 import Usage

DOCS: Final = ROOT / "docs" / "reliability.md"
EACH: Final = 10
NEXT: Final = "the next provider's answer"
OWN: Final = "its answer"


@dataclass(frozen=True)
class Seen:
    """What one caller saw.

    Attributes:
        what: in words.
        sent: words of the broken answer that the caller got; None for a whole answer.
        counted: input and output tokens that the gateway told.
    """

    what: str
    sent: int | None
    counted: str
    took_s: float

    @property
    def gist(self) -> tuple[str, str, str]:
        """All but the time."""
        return self.what, "" if self.sent is None else f"{self.sent} words", self.counted


def told(usage: Usage) -> str:
    """Tokens in and out, as the docs write them."""
    return f"{usage.input_tokens} + {usage.output_tokens}{', estimated' if usage.estimated else ''}"


async def one(asking: Callers, model: str, mark: str) -> Seen:
    """One stream."""
    since_s = monotonic()
    events, outcome = await asking.stream(spec(model, f"say {mark}"))
    took_s = monotonic() - since_s
    assert outcome.ends + len(outcome.errors) == 1
    if outcome.ends:
        what = {said(mark, HEALTHY): NEXT, said(mark, FAULTY): OWN}[outcome.text]
        return Seen(what, None, told(events[-1].completed.completion.usage), took_s)
    (reason,) = outcome.errors
    if not events:
        return Seen(reason, None, "-", took_s)
    assert said(mark, FAULTY).startswith(outcome.text)
    words = len(pieces(outcome.text))
    return Seen(f"its beginning, then {reason}", words, told(events[-1].interrupted.usage), took_s)


async def measure(kind: Kind) -> dict[str, list[Seen]]:
    """Streams of each dialect."""
    found: dict[str, list[Seen]] = {}
    async with fleet(kind, models=EACH) as running, callers(running.service) as asking:
        for name in WIRES:
            found[name] = [
                await one(asking, route(name, number), f"mark-{number}-{name}")
                for number in range(EACH)
            ]
    return found


def rows(kind: Kind, found: dict[str, list[Seen]]) -> Iterator[tuple[str, ...]]:
    """Dialects that did the same, together."""
    groups: dict[tuple[tuple[str, str, str], ...], list[str]] = {}
    for name, seen in found.items():
        groups.setdefault(tuple(sorted({each.gist for each in seen})), []).append(name)
    for gists, names in groups.items():
        took_s = [each.took_s for name in names for each in found[name]]
        whats, sents, counts = (
            " or ".join(dict.fromkeys(column)) for column in zip(*gists, strict=True)
        )
        yield (
            kind.name,
            "all" if len(names) == len(WIRES) else ", ".join(names),
            whats,
            f"{median(took_s) * 1000:.0f}, {max(took_s) * 1000:.0f}",
            sents,
            counts,
        )


def table(columns: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    head = [*columns]
    written = [
        " | ".join(head),
        "|".join("---" for _ in head),
        *(" | ".join(line) for line in lines),
    ]
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in written)


def put(path: Path, name: str, text: str) -> None:
    """Between the markers of this name. Raises: ValueError without them."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found, rest = path.read_text().partition(begin)
    _, also, after = rest.partition(end)
    if not found or not also:
        raise ValueError(f"{path.name} has no markers {name!r}")
    path.write_text(f"{before}{begin}\n{text}\n\n{end}{after}")


def stamped(stamp: Stamp) -> str:
    """What was measured, and when."""
    changed = ", changed since" if stamp.changes else ""
    return (
        f"Commit {stamp.commit}{changed}, {datetime.now(UTC):%Y-%m-%d}, Python {stamp.python}, "
        f"{stamp.cpus} CPUs."
    )


async def main(only: str) -> None:
    """Measures, and writes."""
    stamp = Stamp.now()
    lines: list[tuple[str, ...]] = []
    for phase, kinds in BY_PHASE.items():
        for kind in kinds:
            if only in kind.name:
                found = [*rows(kind, await measure(kind))]
                lines += [(phase, *row) for row in found]
                print(*found, sep="\n", flush=True)
    if only:
        return
    columns = (
        "Phase",
        "Fault",
        "Dialects",
        "The caller saw",
        "After, ms: median, most",
        "Sent before it broke",
        "Counted: tokens in + out",
    )
    about = (
        f"{stamped(stamp)} {EACH} streams for each fault and dialect. Where only a timer ends the fault, it is set to "
        f"{SILENCE_S * 1000:.0f} ms. The provider that is well says 9 + 12 tokens."
    )
    put(DOCS, "faults", f"{about}\n\n{table(columns, lines)}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "-k", default="", help="only kinds whose name holds this; writes nothing"
    )
    uvloop.run(main(arguments.parse_args().k))
