"""Limits: what a plan allows, what a request asks of it, the answer, and how a caller is told.

`Limiter` is the port. Its adapters are in `storage`: one keeps the buckets in the process, one in Redis.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from typing import Final, NamedTuple, Protocol

from trunkline_server.core import gcra

MAX_LEASE_S: Final = 3_600.0
MAX_QUANTITY: Final = 10**12
MAX_WINDOW_S: Final = 366 * 86_400
MAX_PROCESSES: Final = 1_024
LIMIT_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")  # Safe in a structured field, and in a key.


@dataclass(frozen=True, slots=True)
class Limit:
    """So many units in a window, and at most a burst of them at once. Made once for each plan, used for each request.

    Attributes:
        name: of what is counted, such as "requests" or "tokens". Callers see it, so it differs among the limits of one
            request.
        window_s: whole seconds.
        processes: one of so many grants its share: the rate is one part of theirs, exactly, and so is the burst, but
            one unit at least.

    Raises:
        ValueError: the name or a number is out of bounds, or the burst would need longer than `MAX_WINDOW_S` to come
            back.
    """

    name: str
    quantity: int
    window_s: int
    burst: int
    processes: int = 1
    rate: gcra.Rate = field(init=False, compare=False, repr=False)
    shown_name: str = field(init=False, compare=False, repr=False)
    shown_quantity: str = field(init=False, compare=False, repr=False)
    policy: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if LIMIT_NAME.fullmatch(self.name) is None:
            raise ValueError("a limit's name has 1 to 64 of a-z, 0-9, _ and -")
        for value, most in (
            (self.quantity, MAX_QUANTITY),
            (self.window_s, MAX_WINDOW_S),
            (self.burst, MAX_QUANTITY),
            (self.processes, MAX_PROCESSES),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"a number of limit {self.name} is not between 1 and {most}")
        if self.burst * self.window_s > self.quantity * MAX_WINDOW_S:
            raise ValueError(f"the burst of limit {self.name} takes too long to come back")
        rate = gcra.Rate(
            self.quantity,
            self.window_s * self.processes,
            max(1, self.burst // self.processes),
        )
        object.__setattr__(self, "rate", rate)
        object.__setattr__(self, "shown_name", f'"{self.name}"')
        object.__setattr__(self, "shown_quantity", str(self.quantity))
        object.__setattr__(self, "policy", f'"{self.name}";q={self.quantity};w={self.window_s}')


class Demand(NamedTuple):
    """Units that a request takes from one bucket.

    Attributes:
        bucket: an id such as "key:abc:requests", with colons between its parts, the widest first.
        cost: 0 or more; 0 only looks.
    """

    bucket: str
    limit: Limit
    cost: int = 1


class Standing(NamedTuple):
    """Where a demand's bucket stands after the verdict.

    Attributes:
        remaining: units that could be taken at once.
        reset_s: until it is full again, in whole seconds, rounded up.
    """

    demand: Demand
    remaining: int
    reset_s: int


class Verdict(NamedTuple):
    """What became of some demands.

    Attributes:
        refused: the demand that has to wait longest, if any has to.
        retry_after_s: when the same demands would pass if nobody else asked; None: never, because a cost is above its
            burst. 0 when they were allowed.
        levels: of each demand's bucket afterwards, as `core.gcra` counts it.
    """

    is_allowed: bool
    refused: Demand | None
    retry_after_s: float | None
    demands: Sequence[Demand]
    levels: Sequence[int]

    @property
    def standings(self) -> list[Standing]:
        """One for each demand, in order."""
        return [
            Standing(demand, *gcra.standing(demand.limit.rate, level))
            for demand, level in zip(self.demands, self.levels, strict=True)
        ]


class Limiter(Protocol):
    """Keeps buckets, and counts what runs at once.

    Nothing here raises when a store fails: an adapter falls back to what it knows itself, and never to no limit.
    """

    async def take(self, demands: Sequence[Demand]) -> Verdict:
        """Take all demands, or none of them: a refusal costs nothing anywhere.

        Raises:
            ValueError: a cost is negative.
        """
        ...

    async def shift(self, demand: Demand, cost: int) -> None:
        """Reconcile an estimate: `cost` more units of the demand's bucket were used than taken; negative: fewer."""
        ...

    async def lease(self, bucket: str, limit: int, holder: str, seconds: float) -> bool:
        """Count `holder` among those that run at once, at most `limit`, for so many seconds. False: no room.

        A holder that has a lease keeps it, for so many seconds from now.

        Raises:
            ValueError: no holder is named, or the time is not above 0 and at most `MAX_LEASE_S`.
        """
        ...

    async def renew(self, bucket: str, holder: str, seconds: float) -> bool:
        """Keep a lease for so many seconds from now. False: it has expired or was released, so ask for a new one.

        Raises:
            ValueError: as for `lease`.
        """
        ...

    async def release(self, bucket: str, holder: str) -> None:
        """Give a lease back. Once is enough; more often, or without one, does nothing."""
        ...

    async def close(self) -> None:
        """Let go of connections and tasks. What was taken stays taken."""
        ...


def verdict_of(
    demands: Sequence[Demand], levels: Sequence[int], waits_us: Sequence[int | None]
) -> Verdict:
    """Put a verdict together.

    Args:
        levels: of each demand's bucket after the decision.
        waits_us: of each demand before it, as by `gcra.wait_us`.
    """
    refused, longest_us = None, 0
    for demand, wait_us in zip(demands, waits_us, strict=True):
        if wait_us is None:
            return Verdict(False, demand, None, demands, levels)
        if wait_us > longest_us:
            refused, longest_us = demand, wait_us
    return Verdict(refused is None, refused, longest_us / gcra.US_PER_S, demands, levels)


def rate_limit_headers(verdict: Verdict) -> Sequence[tuple[str, str]]:
    """Names and values for HTTP headers and gRPC metadata; none where nothing was demanded.

    The first six tell of the demand that was refused, or else of the one of which the smallest share is left: its
    quantity, the units that remain (never shown as more than the quantity, even where the burst is), and the seconds
    until it is full. The last two tell of all.

    Source: https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-11
    """
    refused, demands, levels = verdict.refused, verdict.demands, verdict.levels
    if len(demands) == 1:
        its = demands[0].limit
        left, full_in_s = gcra.standing(its.rate, levels[0])
        if left > its.quantity:
            left = its.quantity
        return _headers_of_one(its.shown_name, its.shown_quantity, its.policy, left, full_in_s)
    limit, remaining, reset_s, fullest = "", 0, 0, -1.0
    policies: list[str] = []
    states: list[str] = []
    for index, demand in enumerate(demands):
        its = demand.limit
        left, full_in_s = gcra.standing(its.rate, levels[index])
        if left > its.quantity:
            left = its.quantity
        fill = inf if demand is refused else levels[index] / its.rate.capacity
        if fill > fullest:
            fullest, limit, remaining, reset_s = fill, its.shown_quantity, left, full_in_s
        policies.append(its.policy)
        states.append(f"{its.shown_name};r={left};t={full_in_s}")
    if not states:
        return ()
    return _headers(limit, remaining, reset_s, ", ".join(policies), ", ".join(states))


@lru_cache(maxsize=1_024)
def _headers_of_one(
    name: str, limit: str, policy: str, remaining: int, reset_s: int
) -> Sequence[tuple[str, str]]:
    """The same for one demand, which mostly stands where others stood lately."""
    return _headers(limit, remaining, reset_s, policy, f"{name};r={remaining};t={reset_s}")


def _headers(
    limit: str, remaining: int, reset_s: int, policies: str, states: str
) -> tuple[tuple[str, str], ...]:
    shown_remaining, shown_reset = str(remaining), str(reset_s)
    return (
        ("ratelimit-limit", limit),
        ("ratelimit-remaining", shown_remaining),
        ("ratelimit-reset", shown_reset),
        ("x-ratelimit-limit", limit),
        ("x-ratelimit-remaining", shown_remaining),
        ("x-ratelimit-reset", shown_reset),
        ("ratelimit-policy", policies),
        ("ratelimit", states),
    )
