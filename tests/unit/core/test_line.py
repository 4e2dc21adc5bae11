"""Who waits in front of a full house, for how long, and who is served first."""

from dataclasses import dataclass
from random import Random

import pytest

from tests.unit.core.walks import Step, go, lengths, seconds, ticks
from trunkline_server.core.line import CALM_S, INTERVAL_S, MAX_WAITING, TARGET_S, Line


def line_of(*joined: tuple[str, float]) -> Line[str]:
    """Those who joined then."""
    line: Line[str] = Line()
    for who, at_s in joined:
        line.join(who, at_s)
    return line


def standing() -> Line[str]:
    """A line that has stood since 10.0; those in it now are fresh."""
    line = line_of(("a", 10.0), ("b", 10.25), ("c", 10.5), ("d", 10.5625))
    line.next(10.25)
    line.next(10.4375)
    return line


def test_an_empty_line_serves_nobody():
    line = line_of()

    assert line.next(10.0) is None
    assert line.expired(10.0) == []
    assert line.next_expiry_s(10.0) is None
    assert not line.is_overloaded(10.0)
    assert len(line) == 0


def test_a_burst_is_served_in_order():
    line = line_of(("a", 10.0), ("b", 10.0), ("c", 10.1))

    served = [line.next(10.2) for _ in range(4)]

    assert served == ["a", "b", "c", None]


def test_a_line_that_stands_serves_the_newest_first():
    line = standing()

    served = [line.next(10.5937) for _ in range(3)]

    assert served == ["d", "c", None]


def test_of_a_few_the_oldest_is_first_even_so():
    line = standing()

    served = [line.next(10.5937, 1), line.next(10.5937, 1)]

    assert served == ["d", "c"]
    assert standing().next(10.5937, 2) == "c"


@pytest.mark.parametrize(("now_s", "expired"), [(10.4999, []), (10.5, ["a"]), (10.6, ["a"])])
def test_in_a_burst_one_may_wait_for_half_a_second(now_s, expired):
    line = line_of(("a", 10.0))

    assert line.expired(now_s) == expired


def test_overloaded_one_may_wait_for_a_tenth_of_a_second():
    line = standing()

    found = [line.expired(now_s) for now_s in (10.5999, 10.5 + TARGET_S, 10.5625 + TARGET_S)]

    assert found == [[], ["c"], ["d"]]


def test_the_turn_to_overload_expires_those_who_have_waited_longer_than_the_target():
    line = line_of(("a", 10.0), ("b", 10.25), ("c", 10.4375))
    line.next(10.3)

    assert line.expired(10.5001) == ["b"]
    assert len(line) == 1


def test_a_line_that_was_empty_in_between_is_a_burst_again():
    line = line_of(("a", 10.0))
    line.next(10.25)

    line.join("b", 10.375)
    line.join("c", 10.375)

    assert not line.is_overloaded(10.375 + INTERVAL_S - 0.01)
    assert line.next(10.5) == "b"


@pytest.mark.parametrize(("calm_s", "served"), [(0.0, "f"), (CALM_S - 0.01, "f"), (CALM_S, "e")])
def test_an_overload_is_remembered_for_a_while(calm_s, served):
    line = standing()
    line.next(10.6)
    line.next(10.6)

    line.join("e", 10.6 + calm_s)
    line.join("f", 10.6 + calm_s)

    assert line.is_overloaded(10.6 + calm_s) is (served == "f")
    assert line.next(10.6 + calm_s) == served


def test_who_leaves_an_overloaded_line_leaves_an_overload_behind():
    line = line_of(("a", 10.0))

    line.leave("a", 10.5)
    line.join("b", 11.0)

    assert line.is_overloaded(11.0)


def test_who_has_left_is_neither_served_nor_expired():
    line = line_of(("a", 10.0), ("b", 10.0), ("c", 10.0))

    line.leave("a", 10.1)
    line.leave("nobody", 10.1)

    assert line.next(10.1) == "b"
    assert line.expired(11.0) == ["c"]


def test_who_leaves_is_told_from_who_looks_the_same():
    first, second = ["same"], ["same"]
    line: Line[list[str]] = Line()
    line.join(first, 10.0)
    line.join(second, 10.0)

    line.leave(second, 10.0)

    assert line.next(10.0) is first


def test_it_is_full_with_a_hundred_and_twenty_eight():
    line: Line[int] = Line()

    joined = 0
    while not line.is_full:
        line.join(joined, 10.0)
        joined += 1

    assert joined == len(line) == MAX_WAITING == 128


def test_a_line_without_places_is_always_full():
    assert Line[str](0).is_full


def test_who_has_waited_too_long_may_still_be_served():
    line = line_of(("a", 10.0), ("b", 10.0))

    assert line.next(20.0) == "b"
    assert line.expired(20.0) == ["a"]


def test_at_the_instant_that_it_names_somebody_expires():
    line = line_of(("a", 10.0), ("b", 10.25))
    line.next(10.3)
    at_s = line.next_expiry_s(10.3)
    assert at_s == 10.5

    assert line.expired(at_s) == ["b"]


@dataclass
class Visit:
    """One who joined: since when, whether somebody waited already, and whether the wait is over."""

    number: int
    since: int
    found_a_line: bool
    is_over: bool = False


class LineWalk:
    """The model keeps everybody who ever joined, and looks through all of them for each answer.

    In some walks it is asked after each step who has waited too long, in others only at times: then who has may still
    be served.
    """

    def __init__(self, random: Random) -> None:
        self.asks_first = random.random() < 0.5
        self.places = random.choice([1, 4, 12, 128])
        self.few = random.choice([0, 1, 3])
        self.load = random.choice([0.3, 0.6, 0.75])
        self.calm = random.choice([0.5, 0.99, 1.0])
        self.unrest = random.choice([0.002, 0.05])
        self.line: Line[int] = Line(self.places)
        self.now = ticks(50) + random.randrange(64)
        self.visits: list[Visit] = []
        self.overloads: list[int] = []  # When it was asked for somebody, and overloaded.

    @property
    def waiting(self) -> list[Visit]:
        return [visit for visit in self.visits if not visit.is_over]

    @property
    def stands_since(self) -> int:
        return next(visit.since for visit in reversed(self.visits) if not visit.found_a_line)

    @property
    def turns_at(self) -> int:
        """When the line that stands now is overload: after half a second, or at once within five of an overload."""
        since = self.stands_since
        is_stressed = any(at <= since < at + 320 for at in self.overloads)
        return since if is_stressed else since + 32

    @property
    def is_overloaded(self) -> bool:
        return bool(self.waiting) and self.now >= self.turns_at

    def is_too_late(self, visit: Visit) -> bool:
        # A tenth of a second is 6.4 ticks.
        waited = self.now - visit.since
        return waited >= 32 or (self.is_overloaded and waited >= 6.4)

    def choose(self, random: Random) -> Step:
        if random.random() < 0.35:
            calm = random.random() < self.calm
            rare = [3, 5, 6, 7, 31, 32, 33, 319, 320]
            return ("wait", random.choice([0, 1, 2, 3] if calm else rare))
        if random.random() < 0.1:
            return random.choice(
                [("leave", random.randrange(1_000)), ("to the turn",), ("expire",)]
            )
        return ("join",) if random.random() < self.load else ("next",)

    def take(self, step: Step) -> None:
        waiting = self.waiting
        match step:
            case ("wait", length):
                self.now += length
            case ("to the turn",) if waiting:
                self.now = max(self.now, self.turns_at)
            case ("join",) if len(waiting) < self.places:
                visit = Visit(len(self.visits), self.now, bool(waiting))
                self.line.join(visit.number, seconds(self.now))
                self.visits.append(visit)
            case ("leave", which) if self.visits:
                visit = self.visits[-1 - which % min(20, len(self.visits))]
                if not visit.is_over:
                    self.note()
                self.line.leave(visit.number, seconds(self.now))
                visit.is_over = True
            case ("next",):
                self.serve()
            case ("expire",):
                self.expire()
        if self.asks_first:
            self.expire()
        self.compare()

    def note(self) -> None:
        if self.is_overloaded:
            self.overloads.append(self.now)

    def serve(self) -> None:
        waiting = self.waiting
        self.note()
        found = self.line.next(seconds(self.now), self.few)
        if not waiting:
            assert found is None
            return
        wanted = waiting[-1 if self.is_overloaded and len(waiting) > self.few else 0]
        assert found == wanted.number
        assert not self.asks_first or self.now - wanted.since <= 32
        wanted.is_over = True

    def expire(self) -> None:
        now_s = seconds(self.now)
        late = [visit for visit in self.waiting if self.is_too_late(visit)]
        named_s = self.line.next_expiry_s(now_s)
        self.note()
        assert self.line.expired(now_s) == [visit.number for visit in late]
        assert (named_s is not None and named_s <= now_s) is bool(late)
        for visit in late:
            visit.is_over = True

    def compare(self) -> None:
        now_s, waiting = seconds(self.now), self.waiting
        assert len(self.line) == len(waiting) <= 128
        assert self.line.is_full is (len(waiting) >= self.places)
        assert self.line.is_overloaded(now_s) is self.is_overloaded
        next_s = self.line.next_expiry_s(now_s)
        if not waiting:
            assert next_s is None
            return
        assert next_s is not None
        assert next_s > now_s or not self.asks_first
        assert next_s <= seconds(waiting[0].since + 32)


LENGTHS = (50, 200, 600)


@lengths
def test_it_does_what_the_whole_history_says(steps):
    go(LineWalk, steps, LENGTHS)
