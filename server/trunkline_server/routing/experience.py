"""What attempts have taught this process about each candidate: how fast it is, how often it fails, how much it writes.

Whole answers and streamed ones are timed apart: to the end the one, to the first token the other.
"""

import math
from collections.abc import Mapping
from typing import Final

from trunkline_server.core.candidate import Candidate
from trunkline_server.routing.thompson import EXPLORED_SHARE, Fortune, Measured, Thompson

USUAL_OUTPUT_TOKENS: Final = 256.0  # Of an answer, while nothing is known.
OUTPUT_STEP: Final = 0.05  # Of the newest in the moving average.

FAILING_SHARE: Final = 0.5
RECENT_GAMMA: Final = 0.95  # The last twenty attempts or so count,
RECENT_HALF_LIFE_S: Final = 30.0  # and less when they are long ago.
MIN_RECENT: Final = 5.0  # Attempts from which a share of failures means something.
FORGETTING_PER_S: Final = math.log(2) / RECENT_HALF_LIFE_S


class Recent:
    """The latest attempts at one candidate, each counting less with time and with every later one."""

    __slots__ = ("_at_s", "_attempts", "_failures")

    def __init__(self) -> None:
        self._at_s = -math.inf
        self._attempts = 0.0
        self._failures = 0.0

    def add(self, now_s: float, failed: bool) -> None:
        """An attempt ended."""
        kept = RECENT_GAMMA * math.exp(FORGETTING_PER_S * min(0.0, self._at_s - now_s))
        self._attempts = self._attempts * kept + 1
        self._failures = self._failures * kept + failed
        self._at_s = max(now_s, self._at_s)

    def failing_share(self, now_s: float) -> float | None:
        """How many of them failed, if more than half of enough did; else None."""
        kept = math.exp(FORGETTING_PER_S * min(0.0, self._at_s - now_s))
        if self._attempts * kept < MIN_RECENT:
            return None
        share = self._failures / self._attempts
        return share if share > FAILING_SHARE else None


class Experience:
    """Of one process. Bounded by the number of candidates. The caller brings the clock.

    Args:
        measured: by `Candidate.key`, the scoring run's times: what is believed before the first attempt.
        learns: False: nothing is added to it, and nobody is asked out of curiosity.
    """

    def __init__(self, measured: Mapping[str, Measured], *, learns: bool = True) -> None:
        explored_share = EXPLORED_SHARE if learns else 0.0
        self.learns = learns
        # Whether a candidate fails does not depend on how it is read.
        fortunes: dict[str, Fortune] = {}
        self.streamed = Thompson(measured, explored_share, fortunes)
        self.whole = Thompson(measured, explored_share, fortunes)
        self._recent: dict[str, Recent] = {}
        self._failing: set[str] = set()
        self._output_tokens: dict[str, float] = {}

    def policy(self, *, whole: bool) -> Thompson:
        """For requests whose answers are read whole, or for the others."""
        return self.whole if whole else self.streamed

    def ended(
        self,
        candidate: Candidate,
        now_s: float,
        *,
        whole: bool,
        latency_s: float | None,
        failed: bool,
        output_tokens: int = 0,
    ) -> None:
        """An attempt ended, and it is known how.

        Args:
            latency_s: until the first token, or the end of a whole answer, or until it failed; None: not known.
        """
        if not self.learns:
            return
        key = candidate.key
        own, other = (self.whole, self.streamed) if whole else (self.streamed, self.whole)
        own.belief(key, now_s).see(now_s, latency_s, failed)
        recent = self._recent.get(key)
        if recent is None:
            recent = self._recent[key] = Recent()
        recent.add(now_s, failed)
        if failed:
            other.belief(key, now_s).reconsider()
            if recent.failing_share(now_s) is not None:
                self._failing.add(key)
        elif output_tokens:
            usual = self._output_tokens.get(key, USUAL_OUTPUT_TOKENS)
            self._output_tokens[key] = usual + OUTPUT_STEP * (output_tokens - usual)

    def gave_up(self, candidate: Candidate, now_s: float, *, whole: bool, waited_s: float) -> None:
        """Its answer had not begun when the caller left, or when another one's came."""
        if self.learns:
            self.policy(whole=whole).belief(candidate.key, now_s).outwait(now_s, waited_s)

    @property
    def knows_failing(self) -> bool:
        """May `failing` have something to say? Most of the time it has not."""
        return bool(self._failing)

    def failing(self, now_s: float) -> Mapping[str, float]:
        """The share of failures of each candidate of whose recent attempts more than half failed, by key."""
        if not self._failing:
            return _NONE
        shares = {key: self._recent[key].failing_share(now_s) for key in self._failing}
        found = {key: share for key, share in shares.items() if share is not None}
        self._failing = set(found)
        return found

    def output_tokens(self, candidate: Candidate) -> float:
        """How many its answers usually have."""
        return self._output_tokens.get(candidate.key, USUAL_OUTPUT_TOKENS)


_NONE: Mapping[str, float] = {}
