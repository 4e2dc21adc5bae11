"""One deadline, leased to the attempts of a request."""

from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.walks import Step, go, lengths, seconds, ticks
from trunkline_server.core.deadline import MIN_FIRST_TOKEN_S, RESERVE_S, Deadline

NOW_S = 1_000.0
SECONDS = st.floats(0.01, 600, allow_nan=False)


@pytest.mark.parametrize(
    ("left_s", "attempts_left", "timeout_s", "patience_s"),
    [
        (60.5, 3, 60.0, 20.0),
        (60.5, 2, 60.0, 30.0),
        (60.5, 1, 90.0, 60.5),
        (60.5, 1, 15.0, 15.0),
        (60.5, 3, 15.0, 15.0),
        (600.0, 3, 60.0, 60.0),
        (5.0, 3, 60.0, 2.0),
        (1.0, 3, 60.0, 1.0),
        (-1.0, 3, 60.0, -1.0),
    ],
    ids=[
        "shared over three",
        "shared over two",
        "the last one gets the rest",
        "the last one has its own limit too",
        "the candidate's limit is shorter than its share",
        "plenty of time",
        "never less than two seconds",
        "never past the deadline",
        "over already",
    ],
)
def test_the_time_that_is_left_is_shared_out(left_s, attempts_left, timeout_s, patience_s):
    deadline = Deadline(NOW_S + left_s)

    by_s = deadline.first_token_by_s(NOW_S, attempts_left, timeout_s)

    assert by_s - NOW_S == pytest.approx(patience_s)


@given(SECONDS, st.integers(1, 5), SECONDS)
def test_no_lease_ends_after_the_deadline_or_the_candidates_own_limit(left_s, left, timeout_s):
    deadline = Deadline(NOW_S + left_s)

    by_s = deadline.first_token_by_s(NOW_S, left, timeout_s)

    assert NOW_S < by_s <= min(deadline.at_s, NOW_S + timeout_s)


@given(st.floats(20, 600), st.integers(2, 5))
def test_silent_candidates_leave_time_for_all_that_follow(left_s, attempts):
    deadline = Deadline(NOW_S + left_s)

    now_s = NOW_S
    for left in range(attempts, 1, -1):
        now_s = deadline.first_token_by_s(now_s, left, 600.0)

    assert deadline.remaining_s(now_s) >= MIN_FIRST_TOKEN_S + RESERVE_S - 0.001


@pytest.mark.parametrize(("left_s", "allows"), [(2.5, True), (2.4, False), (-1.0, False)])
def test_another_attempt_needs_two_and_a_half_seconds(left_s, allows):
    assert Deadline(NOW_S + left_s).allows_another(NOW_S) is allows


def test_who_waits_for_ever_leaves_each_candidate_its_own_limit():
    deadline = Deadline(inf)

    assert deadline.first_token_by_s(NOW_S, 3, 60.0) == NOW_S + 60.0
    assert deadline.allows_another(1e18)


@pytest.mark.parametrize("attempts_left", [1, 0, -1])
def test_with_no_further_attempt_to_come_the_last_one_is_meant(attempts_left):
    deadline = Deadline(NOW_S + 10)

    assert deadline.first_token_by_s(NOW_S, attempts_left, 60.0) == NOW_S + 10


def test_a_candidate_that_is_quicker_than_two_seconds_keeps_its_own_limit():
    assert Deadline(NOW_S + 60).first_token_by_s(NOW_S, 3, 0.5) == NOW_S + 0.5


class RequestWalk:
    """One request from attempt to attempt, each of which is silent for a part of its lease.

    The model reads 2.6 of the specification with whole ticks: what is left without the reserve, shared by those that
    may still come, but two seconds at least and the candidate's own limit at most; the last one gets all.
    """

    def __init__(self, random: Random) -> None:
        self.now = random.randrange(10_000)
        self.end = (
            self.now + random.choice([1, 100, 160, 640, 6_400, 38_400]) + random.randrange(64)
        )
        self.deadline = Deadline(seconds(self.end))

    def choose(self, random: Random) -> Step:
        attempts_left = random.choice([1, 1, 2, 4, 8])
        limit = ticks(random.choice([0.5, 2, 3, 15, 60, 180]))
        return (attempts_left, limit, random.choice([0, 1, 4, 4]))

    def take(self, step: Step) -> None:
        attempts_left, limit, quarters = step
        left = self.end - self.now
        assert self.deadline.remaining_s(seconds(self.now)) == seconds(left)
        assert self.deadline.allows_another(seconds(self.now)) is (left >= 160)
        by_s = self.deadline.first_token_by_s(seconds(self.now), attempts_left, seconds(limit))
        if attempts_left == 1:
            wanted = min(left, limit)
        else:
            # Exact, since attempts are powers of two and so are the ticks of a second.
            wanted = min(sorted([(left - 32) / attempts_left, 128, limit])[1], left)
            wanted = min(wanted, limit)
        assert by_s == seconds(self.now) + wanted / 64
        self.now += max(0, int(wanted * quarters / 4))


@lengths
def test_a_request_is_leased_as_the_specification_says(steps):
    go(RequestWalk, steps, lengths=(3, 6, 12))
