"""The generic cell rate algorithm, in whole numbers. Sans-I/O: the caller keeps the level and brings the clock.

A limit of `quantity` units in a window is a bucket with a hole. A unit weighs as much as the window has microseconds,
and in each microsecond as much runs out as the quantity says, both divided by what they have in common; so nothing is
ever rounded, neither a unit nor the rate. (For a hundred a minute a unit weighs 600,000, and 1 runs out in each
microsecond: that is the emission interval.) What is in a bucket is its level; a request is let in when its weight still
fits. The theoretical arrival time of the other way to write the algorithm is `at_us + level / drain`.

A level is always kept together with the instant at which it was true. Should the clock step back, nothing has run out
since, and the caller keeps the level with the new, earlier instant: so a step back changes nothing but that, and a step
forward lets run out what time would. After either, the bucket goes on at its rate.

Source: ITU-T I.371, annex A: the continuous-state leaky bucket and virtual scheduling are the same algorithm.
"""

from dataclasses import dataclass, field
from math import gcd
from typing import Final

US_PER_S: Final = 1_000_000
MAX_DEBT_US: Final = 3_600 * US_PER_S  # Nobody is shut out for longer by what turned out dearer.


@dataclass(frozen=True, slots=True)
class Rate:
    """`quantity` units in `window_s` seconds, and at most `burst` of them at once.

    Attributes:
        weight: of one unit.
        drain: what runs out in a microsecond.
        capacity: what the bucket holds.

    Raises:
        ValueError: a number is below 1.
    """

    quantity: int
    window_s: int
    burst: int
    weight: int = field(init=False, compare=False, repr=False)
    drain: int = field(init=False, compare=False, repr=False)
    drain_per_s: int = field(init=False, compare=False, repr=False)
    capacity: int = field(init=False, compare=False, repr=False)
    max_level: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.quantity, self.window_s, self.burst) < 1:
            raise ValueError("quantity, window_s and burst are 1 at least")
        window_us = self.window_s * US_PER_S
        common = gcd(window_us, self.quantity)
        weight, drain = window_us // common, self.quantity // common
        capacity = self.burst * weight
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "drain", drain)
        object.__setattr__(self, "drain_per_s", drain * US_PER_S)
        object.__setattr__(self, "capacity", capacity)
        object.__setattr__(self, "max_level", capacity + MAX_DEBT_US * drain)


def level_at(rate: Rate, level: int, at_us: int, now_us: int) -> int:
    """What is left now of the level that was true at `at_us`. A clock that stepped back lets nothing run out."""
    if now_us > at_us:
        level -= (now_us - at_us) * rate.drain
        if level < 0:
            return 0
    return level


def level_with(rate: Rate, level: int, at_us: int, now_us: int, cost: int) -> int:
    """What it would be now with `cost` units more. They fit if that is at most `rate.capacity`."""
    if now_us > at_us:
        level -= (now_us - at_us) * rate.drain
        if level < 0:
            return cost * rate.weight
    return level + cost * rate.weight


def wait_us(rate: Rate, level: int, cost: int) -> int | None:
    """Until `cost` units fit, if nobody else takes any. 0: now. None: never, because they are more than the burst."""
    over = level + cost * rate.weight - rate.capacity
    if over <= 0:
        return 0
    return None if cost > rate.burst else -(-over // rate.drain)


def shifted(rate: Rate, level: int, cost: int) -> int:
    """The level after `cost` more units were used than had been taken; negative: fewer.

    More than fits is a debt, which has to run out first. It is limited to what runs out in `MAX_DEBT_US`.
    """
    level += cost * rate.weight
    return min(level, rate.max_level) if level > 0 else 0


def standing(rate: Rate, level: int) -> tuple[int, int]:
    """Whole units that fit at once, and seconds until the whole burst fits again, rounded up."""
    left = rate.capacity - level
    return left // rate.weight if left > 0 else 0, -(-level // rate.drain_per_s)
