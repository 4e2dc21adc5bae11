"""When a second provider is asked as well, and how rarely."""

from random import Random

import pytest

from tests.unit.core.walks import Step, go, lengths
from trunkline_server.core.hedging import SAMPLES, FirstTokens, HedgeAllowance


def after(*first_tokens_s: float) -> FirstTokens:
    """What is known after these."""
    found = FirstTokens()
    for first_token_s in first_tokens_s:
        found.add(first_token_s)
    return found


@pytest.mark.parametrize(("count", "delay_s"), [(0, 10.0), (19, 10.0), (20, 2.0), (21, 2.0)])
def test_until_twenty_are_known_the_longest_delay_holds(count, delay_s):
    assert after(*[2.0] * count).hedge_delay_s == delay_s


@pytest.mark.parametrize(
    ("first_token_s", "delay_s"),
    [(0.0, 1.0), (0.999, 1.0), (1.0, 1.0), (1.5, 1.5), (10.0, 10.0), (10.1, 10.0), (1e9, 10.0)],
)
def test_the_delay_is_between_one_second_and_ten(first_token_s, delay_s):
    assert after(*[first_token_s] * 20).hedge_delay_s == delay_s


def test_one_slow_one_in_twenty_does_not_change_the_delay():
    assert after(*[2.0] * 19, 9.0).hedge_delay_s == 2.0


def test_two_slow_ones_in_twenty_are_waited_for():
    assert after(*[2.0] * 18, 9.0, 9.0).hedge_delay_s == 9.0


@pytest.mark.parametrize(
    ("count", "slow"), [(20, 1), (21, 1), (39, 1), (40, 2), (59, 2), (60, 3), (199, 9), (200, 10)]
)
def test_as_many_slow_ones_as_are_a_twentieth_do_not_change_it_but_one_more_does(count, slow):
    found_s = [after(*[2.0] * (count - n), *[9.0] * n).hedge_delay_s for n in (slow, slow + 1)]

    assert found_s == [2.0, 9.0]


def test_the_order_in_which_they_came_does_not_matter():
    numbers = [1 + number / 32 for number in range(100)]

    found = {
        after(*order).hedge_delay_s for order in (numbers, numbers[::-1], sorted(numbers, key=hash))
    }

    assert found == {numbers[94]}


def test_only_the_last_two_hundred_count():
    assert after(*[9.0] * 1_000, *[2.0] * SAMPLES).hedge_delay_s == 2.0


class FirstTokensWalk:
    """The model keeps all of them, and seeks the least that nineteen in twenty of the last ones don't exceed."""

    def __init__(self, random: Random) -> None:
        self.kinds = random.choice([(1, 40), (1, 1_000), (300, 700)])
        self.first_tokens = FirstTokens()
        self.history: list[float] = []

    def choose(self, random: Random) -> Step:
        return (random.randint(*self.kinds) / 32,)

    def take(self, step: Step) -> None:
        (first_token_s,) = step
        self.first_tokens.add(first_token_s)
        self.history.append(first_token_s)
        found_s = self.first_tokens.hedge_delay_s
        recent = self.history[-200:]
        if len(recent) < 20:
            assert found_s == 10.0
            return
        assert 1.0 <= found_s <= 10.0
        not_above = sum(1 for other_s in recent if other_s <= found_s)
        below = sum(1 for other_s in recent if other_s < found_s)
        assert 20 * not_above >= 19 * len(recent) or found_s == 10.0
        assert 20 * below < 19 * len(recent) or found_s == 1.0


@lengths
def test_the_delay_is_what_the_whole_history_says(steps):
    go(FirstTokensWalk, steps, lengths=(15, 60, 300, 500))


def earned(requests: int) -> HedgeAllowance:
    """What is left after so many requests without a hedge."""
    found = HedgeAllowance()
    for _ in range(requests):
        found.earn()
    return found


@pytest.mark.parametrize(("requests", "allows"), [(0, False), (19, False), (20, True), (21, True)])
def test_twenty_requests_earn_one_hedge(requests, allows):
    assert earned(requests).allows is allows


def test_a_hedge_that_was_made_has_to_be_earned_again():
    allowance = earned(20)

    allowance.spend()

    assert not allowance.allows


@pytest.mark.parametrize(("requests", "hedges"), [(60, 3), (100, 5), (100_000, 5)])
def test_a_quiet_time_saves_up_five_at_most(requests, hedges):
    allowance = earned(requests)

    spent = 0
    while allowance.allows:
        allowance.spend()
        spent += 1

    assert spent == hedges


class AllowanceWalk:
    """The model keeps every request and hedge. What more than a hundred in a row would have earned is lost.

    So what is left is what was earned and not spent since the start, or since any request, with a hundred saved up by
    then: whichever is least.
    """

    def __init__(self, random: Random) -> None:
        self.eager = random.choice([0.0, 0.2, 1.0])
        self.allowance = HedgeAllowance()
        self.history: list[int] = []

    @property
    def left(self) -> int:
        least, since = 100, 0
        for change in reversed(self.history):
            since += change
            least = min(least, 100 + since)
        return min(least, since)

    def choose(self, random: Random) -> Step:
        if random.random() < 0.01:
            self.eager = random.choice([0.0, 0.2, 1.0])
        return (random.random() < self.eager,)

    def take(self, step: Step) -> None:
        (is_slow,) = step
        self.allowance.earn()
        self.history.append(1)
        allows = self.left >= 20
        assert self.allowance.allows is allows
        if is_slow and allows:
            self.allowance.spend()
            self.history.append(-20)
        hedges = self.history.count(-20)
        assert 20 * hedges <= self.history.count(1)
        assert 20 * self.history[-500:].count(-20) <= self.history[-500:].count(1) + 100


@lengths
def test_the_allowance_is_what_the_whole_history_says(steps):
    go(AllowanceWalk, steps, lengths=(30, 200, 600))
