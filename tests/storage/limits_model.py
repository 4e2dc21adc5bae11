"""What limits mean, written once more and slowly: fractions of units, and what is left of each lease.

Nothing of the program's own arithmetic is used, so that a mistake in it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

from trunkline_server.core.limits import Demand, Limit

US = 1_000_000
MAX_DEBT_S = 3_600

Figures = tuple[bool, float | None, list[tuple[int, int]]]


@dataclass
class Bucket:
    """Units that were used and have not come back; true at an instant."""

    used: Fraction = Fraction(0)
    at_us: int = 0

    def at(self, limit: Limit, now_us: int) -> Fraction:
        """Those of now. Time that goes back gives nothing back."""
        elapsed_s = Fraction(max(0, now_us - self.at_us), US)
        return max(Fraction(0), self.used - elapsed_s * limit.quantity / limit.window_s)


@dataclass
class Room:
    """How long each holder has left; true at an instant."""

    left_us: dict[str, int] = field(default_factory=dict)
    at_us: int = 0

    def look(self, now_us: int) -> None:
        """Let the time go by that went by."""
        elapsed_us = max(0, now_us - self.at_us)
        self.at_us = now_us
        self.left_us = {h: us - elapsed_us for h, us in self.left_us.items() if us > elapsed_us}


class Model:
    """Says what a limiter must answer."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}
        self._rooms: dict[str, Room] = {}

    def take(self, demands: Sequence[Demand], now_us: int) -> Figures:
        """Allowed or not, when to retry, and for each demand what remains and the seconds until it is full."""
        used: dict[str, Fraction] = {}
        for name, limit, _ in demands:
            bucket = self._buckets.setdefault(name, Bucket(at_us=now_us))
            used[name] = bucket.at(limit, now_us)
        before = dict(used)
        waits: list[Fraction | None] = []
        for name, limit, cost in demands:
            used[name] += cost
            missing_s = (used[name] - limit.burst) * limit.window_s / limit.quantity
            waits.append(None if cost > limit.burst else max(Fraction(0), missing_s))
        is_allowed = all(wait == 0 for wait in waits)
        for name, _, _ in demands:
            bucket = self._buckets[name]
            if is_allowed:
                bucket.used, bucket.at_us = used[name], now_us
            bucket.at_us = min(bucket.at_us, now_us)
        retry_s: float | None = None
        if None not in waits:
            retry_s = max((ceil(wait * US) / US for wait in waits if wait is not None), default=0.0)
        after = used if is_allowed else before
        figures = [
            (
                max(0, floor(limit.burst - after[name])),
                ceil(after[name] * limit.window_s / limit.quantity),
            )
            for name, limit, _ in demands
        ]
        return is_allowed, retry_s, figures

    def shift(self, name: str, limit: Limit, cost: int, now_us: int) -> None:
        """More or fewer were used."""
        bucket = self._buckets.setdefault(name, Bucket(at_us=now_us))
        most = limit.burst + Fraction(MAX_DEBT_S * limit.quantity, limit.window_s)
        bucket.used = min(most, max(Fraction(0), bucket.at(limit, now_us) + cost))
        bucket.at_us = now_us

    def lease(self, name: str, limit: int, holder: str, us: int, now_us: int) -> bool:
        """Is there room?"""
        room = self._look(name, now_us)
        if holder not in room.left_us and len(room.left_us) >= limit:
            return False
        room.left_us[holder] = us
        return True

    def renew(self, name: str, holder: str, us: int, now_us: int) -> bool:
        """Is it still there?"""
        room = self._look(name, now_us)
        if holder not in room.left_us:
            return False
        room.left_us[holder] = us
        return True

    def release(self, name: str, holder: str, now_us: int) -> None:
        """It is over."""
        self._look(name, now_us).left_us.pop(holder, None)

    def _look(self, name: str, now_us: int) -> Room:
        room = self._rooms.setdefault(name, Room(at_us=now_us))
        room.look(now_us)
        return room
