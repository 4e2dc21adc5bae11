"""One deadline per request, leased to its attempts.

All instants are seconds of one monotonic clock, that of the event loop.
"""

from dataclasses import dataclass

RESERVE_S = 0.5  # Kept for the terminal event and the settlement.
MIN_ATTEMPT_S = 2.5  # A further attempt with less time than this would only burn money.
MIN_FIRST_TOKEN_S = 2.0


@dataclass(slots=True)
class Deadline:
    """The instant at which the caller stops caring."""

    at_s: float

    def remaining_s(self, now_s: float) -> float:
        """Seconds left; negative when it has passed."""
        return self.at_s - now_s

    def allows_another(self, now_s: float) -> bool:
        """Is there enough time to start a further attempt?"""
        return self.remaining_s(now_s) >= MIN_ATTEMPT_S

    def first_token_by_s(
        self, now_s: float, attempts_left: int, first_token_timeout_s: float
    ) -> float:
        """The instant by which an attempt must show content.

        The time left is shared out evenly over the attempts that may still come, so that a silent first candidate
        leaves room for the second; the last one gets what remains.
        """
        remaining_s = self.remaining_s(now_s) - RESERVE_S
        if attempts_left <= 1:
            return min(now_s + first_token_timeout_s, self.at_s)
        share_s = max(MIN_FIRST_TOKEN_S, remaining_s / attempts_left)
        return min(now_s + min(share_s, first_token_timeout_s), self.at_s)
