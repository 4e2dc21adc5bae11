"""Random walks: a machine and a model of it take the same steps, and after each one have to agree.

A model is written from the specification and is naive on purpose: it keeps what happened and counts again whenever it
is asked. Instants are whole ticks, which are exact as floats too, so that both sides can meet at the very instant at
which something changes. A walk that finds a difference is cut down to the steps that it takes.
"""

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import pytest

TICKS_PER_S = 64
LENGTHS = (20, 100, 300, 300, 1_000)

Step = tuple[Any, ...]

lengths = pytest.mark.parametrize(
    "steps",
    [pytest.param(4_000, id="short"), pytest.param(200_000, id="long", marks=pytest.mark.slow)],
)


class Walk(Protocol):
    """A machine beside its model."""

    def choose(self, random: Random) -> Step:
        """What could be done next."""

    def take(self, step: Step) -> None:
        """Does it to both, unless it is impossible by now, and compares them."""


def ticks(seconds: float) -> int:
    """Seconds to ticks, of which they have to be a whole number."""
    found = seconds * TICKS_PER_S
    assert found == int(found)
    return int(found)


def seconds(count: int) -> float:
    """Ticks to seconds, exactly."""
    return count / TICKS_PER_S


def go(new: Callable[[Random], Walk], steps: int, lengths: tuple[int, ...] = LENGTHS) -> None:
    """Walks of these lengths, one after the other, until so many steps were taken."""
    random = Random(steps)
    while steps > 0:
        seed, length = random.getrandbits(32), min(steps, random.choice(lengths))
        steps -= length
        _walk(new, seed, random, length)


def _walk(new: Callable[[Random], Walk], seed: int, random: Random, length: int) -> None:
    walk = new(Random(seed))
    way: list[Step] = []
    for _ in range(length):
        way.append(walk.choose(random))
        try:
            walk.take(way[-1])
        except AssertionError as difference:
            shown = "\n".join(map(str, _shortened(new, seed, way)))
            raise AssertionError(
                f"They differ after these steps of seed {seed}:\n{shown}"
            ) from difference


def _shortened(new: Callable[[Random], Walk], seed: int, way: list[Step]) -> list[Step]:
    """The same way without the steps that the difference does not need."""
    size = len(way) // 2
    while size:
        for start in range(len(way) - size, -1, -size):
            shorter = way[:start] + way[start + size :]
            if _differs(new, seed, shorter):
                way = shorter
        size //= 2
    return way


def _differs(new: Callable[[Random], Walk], seed: int, way: list[Step]) -> bool:
    walk = new(Random(seed))
    try:
        for step in way:
            walk.take(step)
    except AssertionError:
        return True
    return False
