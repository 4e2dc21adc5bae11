"""Answers that are cut at a byte: the mark of a request says where and how."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.faults.callers import STREAMS, Outcome
from tests.faults.kinds import FAULTY, HEALTHY, Kind
from tests.faults.proxy import Ending, Fault, Fin, Hole, Trickle
from tests.faults.upstreams import Ask
from tests.faults.wires import said
from tests.support.upstream import Hang, Reset

ENDINGS: Final[Mapping[str, Ending]] = {
    "fin": Fin(),
    "rst": Reset(),
    "stall": Hang(),
    "hole": Hole(),
    "trickle": Trickle(1.0),
}
ENDS: Final = ("fin", "rst")  # Those that nobody has to wait for.


@dataclass(frozen=True)
class Place:
    """Where a mark says to cut."""

    offset: int
    ending: str
    number: int

    @property
    def mark(self) -> str:
        """Of one length for all places, so that all answers are of one length too."""
        return f"mark-{self.number:06d}-{self.offset:06d}-{self.ending}"

    @staticmethod
    def of(mark: str) -> "Place":
        """What a mark says."""
        _, number, offset, ending = mark.split("-")
        return Place(int(offset), ending, int(number))


def cut(ask: Ask) -> Fault:
    """At the place that the prompt names."""
    place = Place.of(ask.mark)
    return Fault(place.offset, ENDINGS[place.ending])


CUT: Final = Kind("cut", reasons=frozenset({"any"}), network=cut)


def ended(mark: str, way: str, outcome: Outcome) -> str:
    """How a cut answer did: `whole`, `error` or `next`, provided that it was in one of the ways that are right."""
    ours, next_ones = said(mark, FAULTY), said(mark, HEALTHY)
    context = (mark, way, outcome)
    if outcome.errors:
        assert outcome.errors == ("STREAM_INTERRUPTED",), context
        assert outcome.ends == 0, context
        assert way in STREAMS, context
        assert outcome.text, context
        assert ours.startswith(outcome.text), context
        return "error"
    assert outcome.ends == 1, context
    if outcome.text == ours:
        assert [reason for _, reason in outcome.attempts] == [""], context
        return "whole"
    assert outcome.text == next_ones, context
    assert outcome.attempts[-1][0].startswith(HEALTHY), context
    return "next"
