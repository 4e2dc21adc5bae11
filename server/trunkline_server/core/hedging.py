"""When a second provider is asked while the first is still silent. Opt-in, for each route.

Waiting until the slowest twentieth of first tokens would have come keeps the hedges few, and the allowance bounds them
whatever happens: a route hedges at most one request in twenty.

Source: gRFC A6 (hedging), and Dean and Barroso, "The Tail at Scale", 2013 (hedge after the 95th percentile).
"""

from collections import deque
from typing import Final

MIN_DELAY_S: Final = 1.0
MAX_DELAY_S: Final = 10.0
PERCENT: Final = 95
SAMPLES: Final = 200
MIN_SAMPLES: Final = 20  # Fewer say nothing of a twentieth: until then the longest delay holds.
REQUESTS_PER_HEDGE: Final = 20
MAX_SAVED: Final = 5  # Hedges that a quiet time may save up.


class FirstTokens:
    """How long a candidate's first tokens took lately."""

    def __init__(self) -> None:
        self._recent_s: deque[float] = deque(maxlen=SAMPLES)

    def add(self, first_token_s: float) -> None:
        """One more."""
        self._recent_s.append(first_token_s)

    @property
    def usual_s(self) -> float | None:
        """What 95 in 100 did not exceed; None while too few are known."""
        count = len(self._recent_s)
        if count < MIN_SAMPLES:
            return None
        rank = -(-PERCENT * count // 100)  # Rounded up: of the samples, 95 in 100 are not above it.
        return sorted(self._recent_s)[rank - 1]

    @property
    def hedge_delay_s(self) -> float:
        """Seconds of silence after which another provider may be asked as well."""
        usual_s = self.usual_s
        return MAX_DELAY_S if usual_s is None else min(max(usual_s, MIN_DELAY_S), MAX_DELAY_S)


class HedgeAllowance:
    """Hedges that a route has left. Each request earns a twentieth of one."""

    def __init__(self) -> None:
        self._earned = 0  # In twentieths.

    def earn(self) -> None:
        """A request starts."""
        self._earned = min(self._earned + 1, MAX_SAVED * REQUESTS_PER_HEDGE)

    @property
    def allows(self) -> bool:
        """Is a whole hedge left?"""
        return self._earned >= REQUESTS_PER_HEDGE

    def spend(self) -> None:
        """A hedge starts."""
        self._earned -= REQUESTS_PER_HEDGE
