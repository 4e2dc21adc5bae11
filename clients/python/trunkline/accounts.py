"""From a caller's words to the contract's requests on accounts, and money without floats.

The contract counts money in nanos, 1e-9 of a US dollar, as whole numbers.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.v1.account_service_pb2 import QueryUsageRequest
from trunkline.v1.admin_service_pb2 import (
    AdjustCreditsRequest,
    CreateKeyRequest,
    RotateKeyRequest,
)
from trunkline.v1.ledger_pb2 import (
    LEDGER_KIND_ADJUSTMENT,
    LEDGER_KIND_GRANT,
    LEDGER_KIND_REFUND,
    LEDGER_KIND_TOPUP,
    LedgerKind,
)

Adjustment = Literal["grant", "topup", "refund", "adjustment"]
"""What an operator can enter into a ledger. A debit is the gateway's own."""

_KINDS: Mapping[str, LedgerKind.ValueType] = {
    "grant": LEDGER_KIND_GRANT,
    "topup": LEDGER_KIND_TOPUP,
    "refund": LEDGER_KIND_REFUND,
    "adjustment": LEDGER_KIND_ADJUSTMENT,
}
_NANO_DIGITS = 9
_MAX_NANOS = 2**63 - 1
_AMOUNT = re.compile(r"([+-]?)([0-9]{1,10})(?:\.([0-9]{1,40}))?")


def nanos_from_usd(usd: str | int | Decimal) -> int:
    """The nanos of an amount in US dollars, exactly.

    Args:
        usd: as in "12.50"; plain digits, without an exponent, a currency or separators.

    Raises:
        TypeError: a float, which is not exact, or anything else.
        ValueError: no amount, finer than a nano, or more than the contract can carry, about 9.2e9.
    """
    if isinstance(usd, bool) or not isinstance(usd, str | int | Decimal):
        raise TypeError(f"an amount is a str, an int or a Decimal, and no {type(usd).__name__}")
    match = _AMOUNT.fullmatch(usd if isinstance(usd, str) else format(usd, "f"))
    if match is None:
        raise ValueError("an amount is digits, with a point and more digits where needed")
    sign, whole, fraction = match[1], match[2], (match[3] or "").rstrip("0")
    if len(fraction) > _NANO_DIGITS:
        raise ValueError(f"an amount has at most {_NANO_DIGITS} digits after the point")
    nanos = int(whole + fraction.ljust(_NANO_DIGITS, "0"))
    if nanos > _MAX_NANOS:
        raise ValueError(f"an amount is at most {usd_from_nanos(_MAX_NANOS)}")
    return -nanos if sign == "-" else nanos


def usd_from_nanos(nanos: int) -> Decimal:
    """An amount in US dollars, exactly, whatever the decimal context."""
    return Decimal(f"{nanos}E-{_NANO_DIGITS}")


def usage_request(
    start: datetime | None,
    end: datetime | None,
    *,
    group_by: Sequence[str],
    organization: str,
    page_size: int,
) -> QueryUsageRequest:
    """Raises ValueError or TypeError for arguments that cannot be sent."""
    return QueryUsageRequest(
        start_time=_timestamp("start", start),
        end_time=_timestamp("end", end),
        group_by=_words("group_by", group_by),
        page_size=page_size,
        organization=organization,
    )


def create_key_request(
    organization: str,
    *,
    name: str,
    plan: str,
    scopes: Sequence[str],
    project: str,
    expire_time: datetime | None,
) -> CreateKeyRequest:
    """Raises ValueError or TypeError for arguments that cannot be sent."""
    return CreateKeyRequest(
        organization=organization,
        name=name,
        plan=plan,
        scopes=_words("scopes", scopes),
        expire_time=_timestamp("expire_time", expire_time),
        project=project,
    )


def rotate_key_request(key_id: str, overlap: timedelta | None) -> RotateKeyRequest:
    """Raises ValueError for a time that is less than none."""
    if overlap is None:
        return RotateKeyRequest(key_id=key_id)
    if overlap < timedelta():
        raise ValueError("overlap must not be negative")
    duration = Duration()
    duration.FromTimedelta(overlap)
    return RotateKeyRequest(key_id=key_id, overlap=duration)


def adjust_credits_request(
    organization: str,
    kind: Adjustment,
    amount_nanos: int,
    *,
    description: str,
    idempotency_key: str,
) -> AdjustCreditsRequest:
    """Raises ValueError or TypeError for arguments that cannot be sent."""
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}")
    if not isinstance(amount_nanos, int):
        raise TypeError("amount_nanos must be an int; see nanos_from_usd")
    return AdjustCreditsRequest(
        organization=organization,
        kind=_KINDS[kind],
        amount_nanos=amount_nanos,
        description=description,
        idempotency_key=idempotency_key,
    )


def _words(name: str, words: Sequence[str]) -> Sequence[str]:
    # As a sequence, a string is its letters.
    if isinstance(words, str):
        raise TypeError(f"{name} must be a sequence of strings, and no string")
    return words


def _timestamp(name: str, instant: datetime | None) -> Timestamp | None:
    if instant is None:
        return None
    if instant.utcoffset() is None:
        raise ValueError(f"{name} must have a time zone, as datetime.now(timezone.utc) has")
    timestamp = Timestamp()
    timestamp.FromDatetime(instant)
    return timestamp
