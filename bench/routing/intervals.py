"""Means and ratios over a few runs, with their intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom. Beyond, the normal's is near enough.
STUDENT_T: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
NORMAL: Final = 1.960


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def mean(values: Sequence[float]) -> Interval:
    """By Student's t; without bounds for a single run."""
    return _around(fmean(values), values)


def ratio(values: Sequence[float], bases: Sequence[float]) -> Interval:
    """The mean of `values` to that of `bases`, which belong together in pairs, one for each run.

    By the delta method: the residuals value - ratio x base are what is uncertain. Without bounds for a single run;
    all infinite where the bases' mean is not positive.
    """
    base = fmean(bases)
    if base <= 0:
        return Interval(math.inf, math.inf, math.inf)
    estimate = fmean(values) / base
    residuals = [(value - estimate * own) / base for value, own in zip(values, bases, strict=True)]
    return _around(estimate, residuals)


def _around(estimate: float, spread: Sequence[float]) -> Interval:
    freedom = len(spread) - 1
    if freedom < 1:
        return Interval(estimate, -math.inf, math.inf)
    t = STUDENT_T[freedom - 1] if freedom <= len(STUDENT_T) else NORMAL
    half = t * stdev(spread) / math.sqrt(len(spread))
    return Interval(estimate, estimate - half, estimate + half)
