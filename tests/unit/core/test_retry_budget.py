"""Retries never become the outage: attempts <= 1.2 * first attempts + 3 in any ten seconds."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trunkline_server.core.retry_budget import EARN, FLOOR, WINDOW_S, RetryBudget

STEPS = st.lists(
    st.tuples(st.floats(0, 4, allow_nan=False), st.sampled_from(["first", "retry"])), max_size=120
)


def granted(budget: RetryBudget, now_s: float, asked: int) -> int:
    """How many of these retries may be made."""
    return sum(budget.spend(now_s) for _ in range(asked))


def test_an_idle_provider_may_be_retried_three_times_in_a_window():
    budget = RetryBudget()

    found = granted(budget, 100.0, 10)

    assert found == FLOOR


@pytest.mark.parametrize(("firsts", "retries"), [(4, 3), (5, 4), (100, 23), (1000, 203)])
def test_each_first_attempt_earns_a_fifth_of_a_retry(firsts, retries):
    budget = RetryBudget()
    for _ in range(firsts):
        budget.earn(100.0)

    found = granted(budget, 100.5, 1000)

    assert found == retries


def test_what_was_earned_expires():
    budget = RetryBudget()
    for _ in range(100):
        budget.earn(100.0)

    found = granted(budget, 100.0 + WINDOW_S + 1, 100)

    assert found == FLOOR


def test_what_was_spent_comes_back():
    budget = RetryBudget()
    granted(budget, 100.0, 10)

    found = granted(budget, 100.0 + WINDOW_S + 1, 10)

    assert found == FLOOR


@example(steps=[(0.9, "retry"), *[(0.0, "retry")] * 2, (9.1, "retry")])
@given(STEPS)
def test_no_ten_seconds_hold_more_retries_than_the_budget(steps):
    budget = RetryBudget()
    now_s = 50.0
    firsts: list[float] = []
    retries: list[float] = []

    for pause_s, kind in steps:
        now_s += pause_s
        if kind == "first":
            budget.earn(now_s)
            firsts.append(now_s)
        elif budget.spend(now_s):
            retries.append(now_s)
            since_s = now_s - WINDOW_S
            earned = EARN * sum(at_s > since_s for at_s in firsts)
            assert sum(at_s > since_s for at_s in retries) <= FLOOR + earned
