"""At a candidate that mostly fails, nobody tries again."""

from random import Random

import pytest

from tests.unit.core.walks import Step, go, lengths
from trunkline_server.core.retry_throttle import RetryThrottle


@pytest.mark.parametrize(("failures", "allows"), [(0, True), (4, True), (5, False), (6, False)])
def test_half_of_the_tokens_or_fewer_are_not_enough(failures, allows):
    throttle = RetryThrottle()

    for _ in range(failures):
        throttle.fail()

    assert throttle.allows is allows


@pytest.mark.parametrize(("successes", "allows"), [(0, False), (1, True)])
def test_one_success_is_enough_to_be_above_half_again(successes, allows):
    throttle = RetryThrottle()
    for _ in range(5):
        throttle.fail()

    for _ in range(successes):
        throttle.succeed()

    assert throttle.allows is allows


@pytest.mark.parametrize(("successes", "allows"), [(50, False), (51, True)])
def test_however_long_it_failed_fifty_one_successes_are_enough(successes, allows):
    throttle = RetryThrottle()
    for _ in range(100_000):
        throttle.fail()

    for _ in range(successes):
        throttle.succeed()

    assert throttle.allows is allows


def test_however_long_it_served_five_failures_are_enough():
    throttle = RetryThrottle()
    for _ in range(100_000):
        throttle.succeed()

    for _ in range(5):
        throttle.fail()

    assert not throttle.allows


@pytest.mark.parametrize(("successes_per_failure", "allows"), [(9, False), (10, True)])
def test_it_bears_one_failure_in_eleven_but_not_in_ten(successes_per_failure, allows):
    throttle = RetryThrottle()

    for _ in range(1_000):
        throttle.fail()
        for _ in range(successes_per_failure):
            throttle.succeed()

    assert throttle.allows is allows


class ThrottleWalk:
    """The model counts the whole history again, each token as ten successes."""

    def __init__(self, random: Random) -> None:
        self.failing = random.choice([0.05, 0.09, 0.1, 0.3])
        self.throttle = RetryThrottle()
        self.history: list[bool] = []

    @property
    def tokens(self) -> float:
        successes = 100
        for failed in self.history:
            successes = max(0, successes - 10) if failed else min(100, successes + 1)
        return successes / 10

    def choose(self, random: Random) -> Step:
        return (random.random() < self.failing,)

    def take(self, step: Step) -> None:
        (failed,) = step
        if failed:
            self.throttle.fail()
        else:
            self.throttle.succeed()
        self.history.append(failed)
        assert self.throttle.allows is (self.tokens > 5)


@lengths
def test_it_does_what_the_whole_history_says(steps):
    go(ThrottleWalk, steps, lengths=(20, 50, 100))
