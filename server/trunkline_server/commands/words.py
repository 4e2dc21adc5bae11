"""Amounts, times and ids as people write and read them."""

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.message import Message

from trunkline import nanos_from_usd, usd_from_nanos

NONE: Final = "-"
MIN_DECIMALS: Final = 2

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_INSTANT: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?", re.ASCII
)
_DURATION: Final = re.compile(r"(\d{1,6})([smhd]?)", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
# gw_ENVIRONMENT_ID_SECRET_CHECK; only the id is public.
_WHOLE_KEY: Final = re.compile(r"gw_[a-z0-9]+_([0-9A-Za-z]{12})_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}")


def amount(text: str) -> int:
    """Nanos of US dollars, exactly. For argparse."""
    try:
        nanos = nanos_from_usd(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if nanos == 0:
        raise argparse.ArgumentTypeError("an amount is not zero")
    return nanos


def amount_given(text: str) -> int:
    """As `amount`, and more than nothing."""
    nanos = amount(text)
    if nanos < 0:
        raise argparse.ArgumentTypeError("an amount is more than zero; see `credits adjust`")
    return nanos


def usd(nanos: int, decimals: int = MIN_DECIMALS) -> str:
    """An amount to its last digit, with at least so many after the point."""
    whole, _, fraction = f"{usd_from_nanos(nanos):f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(decimals, '0')}"


def decimals(nanos: int) -> int:
    """How many digits an amount has after the point, at least two."""
    return len(usd(nanos).partition(".")[2])


def start(text: str) -> datetime:
    """A day or an instant, in UTC where it says no zone. For argparse."""
    return _instant(text, timedelta())


def end(text: str) -> datetime:
    """As `start`, but of a day its end. For argparse."""
    return _instant(text, timedelta(days=1))


def expiry(text: str) -> datetime | timedelta:
    """As `end`, or a time from now. For argparse."""
    return duration(text) if _DURATION.fullmatch(text) else end(text)


def duration(text: str) -> timedelta:
    """As in 90s, 30m, 24h or 7d; seconds without a unit. For argparse."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 30m, 24h or 7d")
    return timedelta(**{_UNITS[match[2] or "s"]: int(match[1])})


def _instant(text: str, day: timedelta) -> datetime:
    try:
        if _DAY.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC) + day
        if _INSTANT.fullmatch(text):
            instant = datetime.fromisoformat(text)
            return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(
        f"{text!r} is no date such as 2026-11-01, and no time such as 2026-11-01T12:00:00Z"
    )


def key_id(text: str) -> str:
    """The public part, also of a whole key: its secret goes no further. For argparse."""
    match = _WHOLE_KEY.fullmatch(text)
    return match[1] if match else text


def time_of(message: Message, field: str, absent: str = NONE) -> str:
    """When it was, in UTC."""
    if not message.HasField(field):
        return absent
    instant: datetime = getattr(message, field).ToDatetime(UTC)
    return f"{instant:%Y-%m-%d %H:%M:%S}Z"


def span(time: timedelta) -> str:
    """As `duration` reads it."""
    seconds = int(time.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def visible(text: str) -> str:
    """Names, labels and descriptions are others' words: nothing in them may steer the terminal, or stop us there."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return shown.encode(encoding, "replace").decode(encoding)
