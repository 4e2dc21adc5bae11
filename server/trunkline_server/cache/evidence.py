"""What is known of answers to similar questions: how often they say the same, by how similar the questions are.

A model answers a question as if nothing were cached, and its answer is held against that to the similar question. What
comes out is counted by bins of similarity, for each owner: nobody's traffic decides what another one is given.

Answers to similar questions are given from the lowest bin on for which it is 95 % sure that at most 2 % of them would
have been other ones; for it alone, and for all above it together. Without a single other answer that takes 149 of them.
One that turns out wrong later can take that away again, until there is evidence enough.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LOWEST: Final = 0.8  # What is less similar is not looked at.
BIN: Final = 0.02
BINS: Final = round((1 - LOWEST) / BIN)
CONFIDENCE: Final = 0.95
MAX_COUNTED: Final = (
    2_000  # In a bin: from there on both counts are halved, so that what is long past counts less.
)


@dataclass(frozen=True, slots=True)
class Count:
    """Of pairs of answers that say the same, and of others."""

    same: int = 0
    other: int = 0

    def plus(self, is_same: bool) -> "Count":
        """With one more."""
        same, other = self.same + is_same, self.other + (not is_same)
        if same + other > MAX_COUNTED:
            same, other = same // 2, -(-other // 2)
        return Count(same, other)

    @property
    def max_false_share(self) -> float:
        """The share of others is not higher than this, with a confidence of 95 %: Clopper and Pearson's bound."""
        return upper_bound(self.other, self.same + self.other)


def bin_of(similarity: float) -> int:
    """0 to BINS - 1. Raises: ValueError: it is below all of them."""
    if similarity < LOWEST:
        raise ValueError("too little similarity")
    return min(BINS - 1, int((similarity - LOWEST) / BIN + 1e-9))


def floor_of(number: int) -> float:
    """The least similarity of a bin."""
    return round(LOWEST + number * BIN, 4)


def threshold(counts: Mapping[int, Count], least: float, max_false: float) -> float | None:
    """From which similarity on answers may be given; None: from none.

    Args:
        least: never below it.
        max_false: how many of them may be wrong, 0 to 1.
    """
    found = None
    same = other = 0
    for number in reversed(range(BINS)):
        count = counts.get(number, Count())
        same, other = same + count.same, other + count.other
        is_sure = max(count.max_false_share, upper_bound(other, same + other)) <= max_false
        if is_sure and floor_of(number) + BIN > least:
            found = max(floor_of(number), least)
    return found


def upper_bound(failures: int, trials: int) -> float:
    """The largest share at which so few failures still happen once in twenty times; 1 where nothing was tried."""
    if failures >= trials:
        return 1.0
    low, high = failures / trials, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if _at_most(failures, trials, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _at_most(failures: int, trials: int, share: float) -> float:
    """How likely so few are."""
    if share >= 1:
        return 0.0
    log = trials * math.log1p(-share)
    ratio = math.log(share) - math.log1p(-share) if share > 0 else -math.inf
    total = math.exp(log)
    for k in range(1, failures + 1):
        log += math.log(trials - k + 1) - math.log(k) + ratio
        total += math.exp(log)
    return total
