"""Who says "too much" and not for how long is left alone, but only once there is nothing to be had at all."""

from random import Random

import pytest

from tests.unit.core.walks import Step, go, lengths, seconds
from trunkline_server.core.throttling import Throttling


def test_the_third_refusal_in_a_row_is_one_too_many_and_waits_double():
    throttling = Throttling(lambda: 0.0)

    waits_s = [throttling.refuse(float(now_s), float(now_s)) for now_s in range(10)]

    assert waits_s == [0, 0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_an_answer_that_begins_ends_the_row():
    throttling = Throttling(lambda: 0.0)

    for now_s in range(9):
        assert throttling.refuse(float(now_s), float(now_s)) < (now_s % 3 == 2) + 0.5
        if now_s % 3 == 2:
            throttling.answer()


def test_those_who_began_before_the_last_refusal_say_nothing_new():
    throttling = Throttling(lambda: 0.0)

    assert [throttling.refuse(1.0, 0.5) for _ in range(50)] == [0.0] * 50
    assert [throttling.refuse(1.0, 1.0) for _ in range(2)] == [0.0, 1.0]


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 1.0), (0.5, 1.1), (1.0, 1.2)])
def test_a_wait_is_longer_by_up_to_a_fifth(chance, wait_s):
    throttling = Throttling(lambda: chance)

    *_, found_s = [throttling.refuse(0.0, 0.0) for _ in range(3)]

    assert found_s == pytest.approx(wait_s)


class ThrottlingWalk:
    """The model reads the whole history again: all refusals since an answer last began, one for each that was news."""

    def __init__(self, random: Random) -> None:
        self.answers = random.choice([0.02, 0.2, 0.5])
        self.throttling = Throttling(lambda: 0.0)
        self.now = 1_000
        self.history: list[tuple[int, int] | None] = []  # When it ended and began; None: an answer.

    @property
    def row(self) -> int:
        """Refusals in a row."""
        news, last = 0, 0
        for entry in self.history:
            if entry is None:
                news = 0
            elif entry[1] >= last:
                news, last = news + 1, entry[0]
        return news

    def choose(self, random: Random) -> Step:
        if random.random() < self.answers:
            return ("answer",)
        return ("refuse", random.choice([0, 0, 1, 40]), random.choice([0, 0, 1, 2, 100]))

    def take(self, step: Step) -> None:
        if step[0] == "answer":
            self.throttling.answer()
            self.history.append(None)
            return
        _, later, took = step
        self.now += later
        before = self.row
        self.history.append((self.now, self.now - took))
        # The third waits 1 s, the fourth 2 s, and so on. What is no news waits for nothing.
        counts = self.row > before or before == 0
        expected_s = min(2.0 ** (self.row - 3), 30.0) if counts and self.row >= 3 else 0.0
        assert self.throttling.refuse(seconds(self.now), seconds(self.now - took)) == expected_s


@lengths
def test_it_does_what_the_whole_history_says(steps):
    go(ThrottlingWalk, steps, lengths=(20, 50, 100))
