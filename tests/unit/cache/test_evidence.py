"""What is known of similar questions, and what follows."""

import math
from fractions import Fraction
from math import comb

import pytest

from trunkline_server.cache.evidence import (
    BIN,
    BINS,
    LOWEST,
    MAX_COUNTED,
    Count,
    bin_of,
    floor_of,
    threshold,
    upper_bound,
)

TOP = BINS - 1


@pytest.mark.parametrize(
    ("failures", "trials"), [(0, 1), (0, 149), (1, 10), (2, 20), (5, 50), (20, 1_000)]
)
def test_at_the_bound_so_few_failures_happen_once_in_twenty_times(failures, trials):
    share = Fraction(upper_bound(failures, trials)).limit_denominator(10**6)

    likely = sum(
        comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(failures + 1)
    )

    assert float(likely) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize("trials", [0, 1, 3])
def test_where_all_failed_nothing_is_excluded(trials):
    assert upper_bound(trials, trials) == 1.0


def test_with_no_failure_it_takes_149_to_be_sure_of_two_percent():
    assert upper_bound(0, 148) > 0.02 >= upper_bound(0, 149)


@pytest.mark.parametrize("similarity", [LOWEST, 0.8199, 0.82, 0.9, 0.9799, 0.98, 1.0])
def test_every_similarity_is_in_its_bin(similarity):
    number = bin_of(similarity)

    assert floor_of(number) <= similarity + 1e-9
    assert number == TOP or similarity < floor_of(number) + BIN


def test_below_all_bins():
    with pytest.raises(ValueError, match="similarity"):
        bin_of(0.79)


GOOD, BAD, FEW = Count(same=200), Count(same=180, other=20), Count(same=20)


@pytest.mark.parametrize(
    ("counts", "least", "expected"),
    [
        pytest.param({}, 0.8, None, id="nothing is known"),
        pytest.param({TOP: FEW}, 0.8, None, id="too little is known"),
        pytest.param({TOP: GOOD}, 0.8, 0.98, id="only the most similar"),
        pytest.param({TOP: GOOD, TOP - 1: GOOD}, 0.8, 0.96, id="the lowest that is sure"),
        pytest.param({TOP: GOOD, TOP - 1: BAD}, 0.8, 0.98, id="not below a bad one"),
        pytest.param({TOP: BAD, TOP - 1: GOOD}, 0.8, None, id="a bad one above counts"),
        pytest.param(
            {TOP: FEW, TOP - 1: Count(same=400)}, 0.8, 0.96, id="few above, and all of them good"
        ),
        pytest.param({TOP: GOOD, TOP - 1: GOOD}, 0.98, 0.98, id="never below the least"),
        pytest.param({TOP: GOOD, TOP - 1: GOOD}, 0.97, 0.97, id="the least within a bin"),
    ],
)
def test_the_threshold_is_the_lowest_bin_that_is_sure(counts, least, expected):
    assert threshold(counts, least, 0.02) == expected


def test_one_wrong_answer_takes_it_away_until_there_is_evidence_enough():
    count = Count(same=149)
    assert threshold({TOP: count}, 0.8, 0.02) == 0.98

    count = count.plus(False)
    assert threshold({TOP: count}, 0.8, 0.02) is None

    for _ in range(100):
        count = count.plus(True)
    assert threshold({TOP: count}, 0.8, 0.02) == 0.98


def test_what_is_long_past_counts_less_and_failures_are_never_rounded_away():
    count = Count(same=MAX_COUNTED - 1, other=1).plus(True)

    assert count == Count(same=MAX_COUNTED // 2, other=1)


def test_the_bound_falls_with_trials_and_rises_with_failures():
    bounds = [[upper_bound(k, n) for n in (50, 200, 2_000)] for k in (0, 1, 5)]

    assert all(row == sorted(row, reverse=True) for row in bounds)
    assert all(list(column) == sorted(column) for column in zip(*bounds, strict=True))
    assert math.isclose(upper_bound(2_000, 2_000), 1.0)
