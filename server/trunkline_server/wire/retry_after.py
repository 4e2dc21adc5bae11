"""How long a provider asks us to stay away, in each of the ways that providers say it."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_S = 3600.0
MAX_RESET_S = 60.0  # A limit may be full again much later than the next request is taken.
# What is left of each limit, and when it is full again: OpenAI and its dialect, and Anthropic.
_LIMITS = tuple(
    [(f"x-ratelimit-remaining-{of}", f"x-ratelimit-reset-{of}") for of in ("requests", "tokens")]
    + [
        (f"anthropic-ratelimit-{of}-remaining", f"anthropic-ratelimit-{of}-reset")
        for of in ("requests", "tokens", "input-tokens", "output-tokens")
    ]
)
_DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?\Z"
)


def retry_after_s(headers: Mapping[str, str], wall_time_s: float) -> float | None:
    """Seconds to wait, at most an hour; None when nothing usable was said.

    Args:
        headers: lower-case names.
        wall_time_s: seconds since the epoch, for `Retry-After` as a date.
    """
    if (milliseconds := _number(headers.get("retry-after-ms", ""))) is not None:
        return min(milliseconds / 1000, MAX_S)
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    seconds = duration_s(value)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(value)
        # The oldest of the three forms has no zone. It means UTC, never where we happen to run.
        at_s = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    # A date in the past says that the wait is over already.
    return min(max(at_s - wall_time_s, 0.0), MAX_S)


def reset_s(headers: Mapping[str, str], wall_time_s: float) -> float | None:
    """Seconds until the limits that are used up are full again, at most a minute; None where none is said to be.

    A hint for a refusal without `Retry-After`. Arguments are as there.
    """
    waits_s = [
        wait_s
        for remaining, reset in _LIMITS
        if _number(headers.get(remaining, "")) == 0
        and (wait_s := _until_s(headers.get(reset, ""), wall_time_s)) is not None
    ]
    return min(max(waits_s), MAX_RESET_S) if waits_s else None


def _until_s(value: str, wall_time_s: float) -> float | None:
    """A duration, or an instant in the form of RFC 3339."""
    if (seconds := duration_s(value)) is not None:
        return seconds
    try:
        at = datetime.fromisoformat(value)
        at_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(at_s - wall_time_s, 0.0)


def duration_s(value: str) -> float | None:
    """`20`, `1.57s`, `6m0s`, `350ms` to seconds, at most an hour; None for anything else, negatives too."""
    if (number := _number(value)) is not None:
        return min(number, MAX_S)
    match = _DURATION.match(value) if len(value) <= 64 else None
    if not value or match is None:
        return None
    days, hours, minutes, seconds, milliseconds = (float(group or 0) for group in match.groups())
    return min(days * 86400 + hours * 3600 + minutes * 60 + seconds + milliseconds / 1000, MAX_S)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
