"""The rate algorithm: what fits, what is left, and what a clock does to it."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.core import gcra
from trunkline_server.core.gcra import US_PER_S, Rate

RATES = st.builds(
    Rate,
    st.one_of(st.integers(1, 10_000), st.integers(1, 10**9)),
    st.integers(1, 86_400),
    st.integers(1, 10_000),
)
MINUTE = Rate(quantity=60, window_s=60, burst=10)


def taken(rate: Rate, count: int, level: int = 0, now_us: int = 0) -> tuple[int, int]:
    """So many of `count` fit one by one at one instant; and the level after them."""
    for number in range(count):
        if gcra.wait_us(rate, level, 1) != 0:
            return number, level
        level = gcra.level_with(rate, level, now_us, now_us, 1)
    return count, level


def test_a_hundred_a_minute_is_one_in_600_000_microseconds():
    rate = Rate(quantity=100, window_s=60, burst=100)

    assert (rate.weight, rate.drain) == (600_000, 1)


@given(RATES)
def test_a_full_bucket_gives_its_burst_and_not_one_more(rate):
    level = gcra.level_with(rate, 0, 0, 0, rate.burst)

    assert level == rate.capacity
    assert gcra.standing(rate, level)[0] == 0
    assert gcra.wait_us(rate, level, 1) == -(-rate.window_s * US_PER_S // rate.quantity)


@given(RATES, st.integers(0, 10**12), st.integers(1, 10_000))
def test_after_the_wait_it_fits_and_a_microsecond_before_it_does_not(rate, level, cost):
    wait_us = gcra.wait_us(rate, level, cost)

    if cost > rate.burst:
        assert wait_us is None
        return
    assert wait_us is not None
    assert gcra.level_with(rate, level, 0, wait_us, cost) <= rate.capacity
    if wait_us:
        assert gcra.level_with(rate, level, 0, wait_us - 1, cost) > rate.capacity


@given(RATES, st.lists(st.integers(0, 3_000_000), max_size=60))
def test_never_more_than_the_burst_and_the_rate(rate, pauses_us):
    level, now_us, count = 0, 0, 0
    for pause_us in pauses_us:
        level = gcra.level_at(rate, level, now_us, now_us + pause_us)
        now_us += pause_us
        more, level = taken(rate, 5, level)
        count += more

        assert count <= rate.burst + Fraction(rate.quantity * now_us, rate.window_s * US_PER_S)


@given(RATES, st.integers(0, 10**13))
def test_it_is_full_after_the_seconds_it_says(rate, level):
    _, full_in_s = gcra.standing(rate, level)

    assert gcra.level_at(rate, level, 0, full_in_s * US_PER_S) == 0
    if full_in_s:
        assert gcra.level_at(rate, level, 0, (full_in_s - 1) * US_PER_S) > 0


@pytest.mark.parametrize("step_us", [-3_600 * US_PER_S, -1], ids="{} us".format)
def test_a_step_back_neither_frees_nor_jams_anything(step_us):
    _, level = taken(MINUTE, 10)
    now_us = 10_000 * US_PER_S + step_us

    level = gcra.level_at(MINUTE, level, 10_000 * US_PER_S, now_us)

    assert taken(MINUTE, 10, level)[0] == 0
    assert gcra.wait_us(MINUTE, level, 1) == US_PER_S
    later = gcra.level_at(MINUTE, level, now_us, now_us + 3 * US_PER_S)
    assert taken(MINUTE, 10, later)[0] == 3


def test_a_step_forward_fills_the_bucket_once():
    _, level = taken(MINUTE, 10)

    level = gcra.level_at(MINUTE, level, 0, 3_600 * US_PER_S)

    assert taken(MINUTE, 100, level)[0] == 10


@given(RATES, st.integers(0, 10_000), st.integers(0, 10_000))
def test_what_was_taken_too_much_comes_back(rate, estimate, used):
    estimate, used = min(estimate, rate.burst), min(used, rate.burst)
    level = gcra.level_with(rate, 0, 0, 0, estimate)

    level = gcra.shifted(rate, level, used - estimate)

    assert gcra.standing(rate, level)[0] == rate.burst - used


def test_more_than_was_ever_taken_does_not_come_back():
    assert gcra.shifted(MINUTE, gcra.level_with(MINUTE, 0, 0, 0, 3), -1_000) == 0


def test_a_debt_runs_out_before_anything_fits():
    level = gcra.shifted(MINUTE, 0, 25)

    assert gcra.standing(MINUTE, level) == (0, 25)
    assert gcra.wait_us(MINUTE, level, 1) == 16 * US_PER_S


def test_no_debt_shuts_anybody_out_for_more_than_an_hour():
    level = gcra.shifted(MINUTE, 0, 10**15)

    assert gcra.wait_us(MINUTE, level, 1) == gcra.MAX_DEBT_US + US_PER_S


@pytest.mark.parametrize("numbers", [(0, 60, 1), (1, 0, 1), (1, 60, 0), (-1, 60, 1)])
def test_a_rate_of_nothing_is_refused(numbers):
    with pytest.raises(ValueError, match="1 at least"):
        Rate(*numbers)
