"""One deadline, leased to the attempts of a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
