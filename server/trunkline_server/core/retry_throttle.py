"""Stops retries and hedges at a candidate that mostly fails, whatever the budget still allows.

Source: gRFC A6, retry throttling: maxTokens 10, tokenRatio 0.1, none while half of the tokens or fewer are left.
https://github.com/grpc/proposal/blob/master/A6-client-retries.md
"""

from typing import Final

MAX_TENTHS: Final = 100  # Counted in tenths of a token: whole numbers do not drift.
SUCCESS_TENTHS: Final = 1
FAILURE_TENTHS: Final = 10


class RetryThrottle:
    """The tokens of one candidate in one process."""

    def __init__(self) -> None:
        self._tenths = MAX_TENTHS

    @property
    def allows(self) -> bool:
        """May the candidate be asked again, or be asked as a hedge?"""
        return 2 * self._tenths > MAX_TENTHS

    def succeed(self) -> None:
        """An attempt served its answer."""
        self._tenths = min(MAX_TENTHS, self._tenths + SUCCESS_TENTHS)

    def fail(self) -> None:
        """An attempt failed."""
        self._tenths = max(0, self._tenths - FAILURE_TENTHS)
