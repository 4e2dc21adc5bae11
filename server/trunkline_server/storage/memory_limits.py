"""Limits of one process, kept in memory. Nothing in here ever waits.

Bounded: a bucket that is full again is as good as none, so each new one sweeps a few others. Where that frees no room
because more callers than `MAX_BUCKETS` are at it, newcomers of one kind share a bucket for each limit, until there is
room: they get less than their limit, and never more.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from trunkline_server.core import gcra
from trunkline_server.core.limits import MAX_LEASE_S, Demand, Limit, Verdict, verdict_of

MAX_BUCKETS: Final = 65_536
MAX_SHARED: Final = 1_024  # Kinds of newcomers, times limits. Beyond them, newcomers are refused.
MAX_LEASES: Final = 65_536
SWEEP: Final = 4  # Looked at for each that is new, so full ones go faster than new ones come.


class MemoryLimits:
    """Fills `core.limits.Limiter`."""

    def __init__(
        self,
        clock_us: Callable[[], int],
        *,
        max_buckets: int = MAX_BUCKETS,
        max_leases: int = MAX_LEASES,
    ) -> None:
        """`clock_us`: any clock that goes on; one that is stepped does no lasting harm."""
        self._clock_us = clock_us
        self._max_buckets = max_buckets
        self._max_leases = max_leases
        self._buckets: dict[str, _Bucket] = {}
        self._to_sweep: deque[str] = deque()
        self._shared: dict[tuple[str, Limit], _Bucket] = {}
        self._leases: dict[str, _Leases] = {}
        self._leases_to_sweep: deque[str] = deque()
        self._lease_count = 0

    @property
    def bucket_count(self) -> int:
        """Buckets that are kept, shared ones apart."""
        return len(self._buckets)

    async def take(self, demands: Sequence[Demand]) -> Verdict:
        """Take all demands, or none of them.

        Raises:
            ValueError: a cost is negative.
        """
        return self.take_now(demands)

    def take_now(self, demands: Sequence[Demand]) -> Verdict:
        """The same, for whoever can't wait.

        Raises:
            ValueError.
        """
        now_us = self._clock_us()
        find = self._buckets.get
        before: list[tuple[_Bucket, int, int]] = []
        for name, limit, cost in demands:
            rate = limit.rate
            bucket = find(name) or self._new_bucket(name, limit, now_us)
            if bucket.rate is not rate:
                bucket.change(rate)
            level = gcra.level_with(rate, bucket.level, bucket.at_us, now_us, cost)
            if level > rate.capacity or cost < 0:
                return self._refuse(demands, before, now_us)
            before.append((bucket, bucket.level, bucket.at_us))
            bucket.level = level  # At once: another demand may name the same bucket.
            bucket.at_us = now_us
        return Verdict(True, None, 0.0, demands, [bucket.level for bucket, _, _ in before])

    async def shift(self, demand: Demand, cost: int) -> None:
        """`cost` more units of the demand's bucket were used than taken; negative: fewer."""
        self.shift_now(demand, cost)

    def shift_now(self, demand: Demand, cost: int) -> None:
        """The same, for whoever can't wait."""
        now_us = self._clock_us()
        name, limit, _ = demand
        bucket = self._buckets.get(name) or self._new_bucket(name, limit, now_us)
        bucket.level = gcra.shifted(limit.rate, bucket.run_out(limit.rate, now_us), cost)

    def level(self, bucket: str, limit: Limit) -> int:
        """What is in a bucket now, as `core.gcra` counts it. 0 where there is none."""
        found = self._buckets.get(bucket)
        return found.look(limit.rate, self._clock_us()) if found else 0

    def set_level(self, bucket: str, limit: Limit, level: int) -> None:
        """Take over what is known from elsewhere, where there is room for it."""
        now_us = self._clock_us()
        found = self._buckets.get(bucket) or self._own_bucket(bucket, limit, now_us)
        if found is not None:
            found.level, found.at_us, found.rate = level, now_us, limit.rate

    async def lease(self, bucket: str, limit: int, holder: str, seconds: float) -> bool:
        """Count `holder` among those that run at once. False: no room.

        Raises:
            ValueError: no holder is named, or the time is out of bounds.
        """
        lease_us = lease_time_us(holder, seconds)
        now_us = self._clock_us()
        leases = self._leases_of(bucket, now_us)
        if not leases.has(holder, now_us) and len(leases.until_us) >= limit:
            self._lease_count -= leases.expire(now_us)
            if len(leases.until_us) >= limit:
                return False
        return self._hold(leases, holder, now_us + lease_us)

    def hold(self, bucket: str, holder: str, seconds: float) -> None:
        """Take over a lease that was given elsewhere, where there is room to remember it."""
        now_us = self._clock_us()
        self._hold(self._leases_of(bucket, now_us), holder, now_us + lease_time_us(holder, seconds))

    def holds(self, bucket: str, holder: str) -> bool:
        """Is there such a lease?"""
        now_us = self._clock_us()
        leases = self._leases.get(bucket)
        return leases is not None and leases.has(holder, now_us)

    async def renew(self, bucket: str, holder: str, seconds: float) -> bool:
        """Keep a lease. False: it has expired or was released.

        Raises:
            ValueError: as for `lease`.
        """
        lease_us = lease_time_us(holder, seconds)
        now_us = self._clock_us()
        leases = self._leases.get(bucket)
        if leases is None or not leases.has(holder, now_us):
            return False
        leases.until_us[holder] = now_us + lease_us
        return True

    async def release(self, bucket: str, holder: str) -> None:
        """Give a lease back; nothing where there is none."""
        self.let_go(bucket, holder)

    def let_go(self, bucket: str, holder: str) -> None:
        """The same, for whoever can't wait."""
        now_us = self._clock_us()
        leases = self._leases.get(bucket)
        if leases is not None:
            leases.has(holder, now_us)
            if leases.until_us.pop(holder, None) is not None:
                self._lease_count -= 1

    async def close(self) -> None:
        """Nothing is held."""

    def _refuse(
        self, demands: Sequence[Demand], taken: list["tuple[_Bucket, int, int]"], now_us: int
    ) -> Verdict:
        """Undo what was taken, and say how long each demand would have to wait."""
        for bucket, level, at_us in reversed(taken):
            bucket.level, bucket.at_us = level, at_us
        levels: list[int] = []
        waits_us: list[int | None] = []
        buckets: dict[str, _Bucket] = {}
        before: dict[_Bucket, int] = {}
        for name, limit, cost in demands:
            if cost < 0:
                raise ValueError("a cost is negative")
            bucket = (
                buckets.get(name)
                or self._buckets.get(name)
                or self._new_bucket(name, limit, now_us)
            )
            buckets[name] = bucket
            level = bucket.look(limit.rate, now_us)
            levels.append(level)
            waits_us.append(gcra.wait_us(limit.rate, level + before.get(bucket, 0), cost))
            before[bucket] = before.get(bucket, 0) + cost * limit.rate.weight
        return verdict_of(demands, levels, waits_us)

    def _new_bucket(self, name: str, limit: Limit, now_us: int) -> "_Bucket":
        bucket = self._own_bucket(name, limit, now_us)
        if bucket is not None:
            return bucket
        kind = (name.partition(":")[0], limit)
        bucket = self._shared.get(kind)
        if bucket is None:
            bucket = _Bucket(limit.rate, now_us)
            if len(self._shared) >= MAX_SHARED:
                full = [key for key, other in self._shared.items() if other.is_full_at(now_us)]
                for key in full:
                    del self._shared[key]
            if len(self._shared) < MAX_SHARED:
                self._shared[kind] = bucket
            else:
                bucket.level = limit.rate.capacity  # Kept nowhere, and nothing fits.
        return bucket

    def _own_bucket(self, name: str, limit: Limit, now_us: int) -> "_Bucket | None":
        buckets, to_sweep = self._buckets, self._to_sweep
        for _ in range(min(SWEEP, len(to_sweep))):
            other = to_sweep.popleft()
            if buckets[other].is_full_at(now_us):
                del buckets[other]
            else:
                to_sweep.append(other)
        if len(buckets) >= self._max_buckets:
            return None
        bucket = buckets[name] = _Bucket(limit.rate, now_us)
        to_sweep.append(name)
        return bucket

    def _leases_of(self, bucket: str, now_us: int) -> "_Leases":
        leases = self._leases.get(bucket)
        if leases is not None:
            return leases
        self._sweep_leases(now_us)
        leases = self._leases[bucket] = _Leases(now_us)
        self._leases_to_sweep.append(bucket)
        return leases

    def _sweep_leases(self, now_us: int) -> None:
        to_sweep = self._leases_to_sweep
        for _ in range(min(SWEEP, len(to_sweep))):
            other = to_sweep.popleft()
            self._lease_count -= self._leases[other].expire(now_us)
            if self._leases[other].until_us:
                to_sweep.append(other)
            else:
                del self._leases[other]

    def _hold(self, leases: "_Leases", holder: str, until_us: int) -> bool:
        if holder not in leases.until_us:
            if self._lease_count >= self._max_leases:
                return False
            self._lease_count += 1
        leases.until_us[holder] = until_us
        return True


class _Bucket:
    """What is in it, and since when that is so."""

    __slots__ = ("at_us", "level", "rate")

    def __init__(self, rate: gcra.Rate, at_us: int) -> None:
        self.rate = rate
        self.level = 0
        self.at_us = at_us

    def change(self, rate: gcra.Rate) -> None:
        """The limit is another one now. What was used stays used, unit for unit."""
        self.level = min(self.level * rate.weight // self.rate.weight, rate.max_level)
        self.rate = rate

    def look(self, rate: gcra.Rate, now_us: int) -> int:
        """The level now. It is not kept, unless the clock stepped back."""
        if self.rate is not rate:
            self.change(rate)
        self.at_us = min(self.at_us, now_us)
        return gcra.level_at(rate, self.level, self.at_us, now_us)

    def run_out(self, rate: gcra.Rate, now_us: int) -> int:
        """Bring the level up to date, and return it."""
        self.level = self.look(rate, now_us)
        self.at_us = now_us
        return self.level

    def is_full_at(self, now_us: int) -> bool:
        """Would a new bucket be the same? Not one that is used at this very instant."""
        return self.at_us < now_us and not gcra.level_at(self.rate, self.level, self.at_us, now_us)


class _Leases:
    """Who holds a lease of one bucket, and until when."""

    __slots__ = ("at_us", "until_us")

    def __init__(self, at_us: int) -> None:
        self.at_us = at_us
        self.until_us: dict[str, int] = {}

    def has(self, holder: str, now_us: int) -> bool:
        """Does it, and has it not expired? Also learns of a clock that stepped back: nobody loses or gains time."""
        step_us = now_us - self.at_us
        if step_us < 0:
            self.until_us = {holder: until + step_us for holder, until in self.until_us.items()}
        self.at_us = now_us
        return self.until_us.get(holder, now_us) > now_us

    def expire(self, now_us: int) -> int:
        """Forget the leases whose time is over. Returns how many."""
        self.has("", now_us)
        over = [holder for holder, until_us in self.until_us.items() if until_us <= now_us]
        for holder in over:
            del self.until_us[holder]
        return len(over)


def lease_time_us(holder: str, seconds: float) -> int:
    """The time of a lease in microseconds.

    Raises:
        ValueError: no holder is named, or the time is out of bounds.
    """
    if not holder:
        raise ValueError("a lease has a holder")
    if not 0 < seconds <= MAX_LEASE_S:
        raise ValueError(f"a lease is for more than 0 s and at most {MAX_LEASE_S:.0f} s")
    return max(1, round(seconds * gcra.US_PER_S))
