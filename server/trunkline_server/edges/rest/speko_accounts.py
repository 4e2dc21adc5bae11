"""Speko's pages on money: `/v1/credits/balance`, `/v1/credits/ledger` and `/v1/usage`.

A balance here is what the organisation owns: what it may spend, and what its running requests hold. Speko knows no
holds, and its balance is that of the last ledger event; a hold is no entry of the ledger until it is settled.

The contract counts nanos, Speko's ledger whole micros, so an entry can't always be told exactly. Each is told as the
difference of the two balances around it, both rounded down to micros. So no rounding adds up: all entries together are
the balance, and any run of neighbours is less than one micro away from what was moved. Rounded one by one, a thousand
small debits could have cost nothing, or twice what they did. Amounts in dollars are exact decimals.

What an entry was for (metric, provider, session) is not in the contract's ledger, and null here.

Times are UTC. A day means the whole of it, as `from` and as `to`: `from=2026-11-01&to=2026-11-30` is all of November.
An instant as `to` is not part of the range. Speko's pages leave that open.

Source: https://docs.speko.dev/sdk-python/credits and https://docs.speko.dev/sdk-python/usage, read 2026-11-22, and the
types of the `spekoai` SDK.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.v1.account_service_pb2 import (
    GetBalanceRequest,
    GetBalanceResponse,
    ListLedgerEntriesRequest,
    ListLedgerEntriesResponse,
    QueryUsageRequest,
    UsageRow,
)
from trunkline.v1.account_service_pb2_grpc import AccountServiceStub
from trunkline.v1.ledger_pb2 import LedgerEntry, LedgerKind
from trunkline_server.edges.rest.body import encode, invalid
from trunkline_server.edges.rest.http import Refused, Request, refusal_of, response_headers
from trunkline_server.edges.rest.query import parameters
from trunkline_server.edges.rest.routes import Handler
from trunkline_server.edges.status import Refusal

BALANCE: Final = "/v1/credits/balance"
LEDGER: Final = "/v1/credits/ledger"
USAGE: Final = "/v1/usage"

CALL_TIMEOUT_S: Final = 30.0
MAX_LIMIT: Final = 1000
MAX_CURSOR_CHARS: Final = 1024
# Of one summary: a provider is a row. A service that never comes to an end is not followed.
USAGE_PAGE: Final = 1000
MAX_USAGE_PAGES: Final = 20
NANOS_PER_MICRO: Final = 1000
NANOS_PER_USD: Final = 1_000_000_000
# Clients insist on a time, also where nothing has happened yet.
NEVER: Final = "1970-01-01T00:00:00Z"

KINDS: Final[Mapping[int, str]] = {
    LedgerKind.LEDGER_KIND_GRANT: "grant",
    LedgerKind.LEDGER_KIND_DEBIT: "debit",
    LedgerKind.LEDGER_KIND_TOPUP: "topup",
    LedgerKind.LEDGER_KIND_REFUND: "refund",
    LedgerKind.LEDGER_KIND_ADJUSTMENT: "adjustment",
}

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
# A plus that was not encoded arrives as a space.
_INSTANT: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)(?:Z|([+ -])(\d{2}):?(\d{2}))?",
    re.ASCII,
)
_LIMIT: Final = re.compile(r"[0-9]{1,9}")
# The service's names for what a caller of this API wrote.
_NAMES: Final[Mapping[str, str]] = {
    "page_size": "limit",
    "page_token": "cursor",
    "start_time": "from",
    "end_time": "to",
}
_FIELD: Final = re.compile(rf"\b({'|'.join(_NAMES)})\b")


class SpekoAccounts:
    """A part of `SpekoShim`. All of it is read with GET.

    Args:
        now: with a time zone; tells which month is the current one.
    """

    def __init__(
        self, channel: Any, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._accounts = AccountServiceStub(channel)
        self._now = now
        self.handlers: Mapping[str, Handler] = {
            BALANCE: self._balance,
            LEDGER: self._ledger,
            USAGE: self._usage,
        }

    async def _balance(self, request: Request) -> None:
        parameters(request.query, ())
        await _answer(request, self._accounts.GetBalance, GetBalanceRequest(), balance_object)

    async def _ledger(self, request: Request) -> None:
        asked = read_ledger(request.query)
        await _answer(request, self._accounts.ListLedgerEntries, asked, ledger_object)

    async def _usage(self, request: Request) -> None:
        asked = read_usage(request.query, self._now())
        rows: list[UsageRow] = []
        for _ in range(MAX_USAGE_PAGES):
            page, _ = await _call(request, self._accounts.QueryUsage, asked)
            rows += page.rows
            if not page.next_page_token:
                break
            asked = _page(asked, page.next_page_token)
        else:
            raise Refused(Refusal("INTERNAL_ERROR", "the summary is too long"))
        await _answer(
            request,
            self._accounts.GetBalance,
            GetBalanceRequest(),
            lambda balance: usage_object(rows, balance),
        )


async def _call(request: Request, method: Any, asked: Any) -> tuple[Any, Any]:
    """What the service answers, and the headers that go with it."""
    try:
        call = method(asked, timeout=CALL_TIMEOUT_S, metadata=request.metadata)
        answer = await call
        return answer, response_headers(await call.initial_metadata())
    except grpc.aio.AioRpcError as error:
        raise Refused(_in_their_words(refusal_of(error))) from error


async def _answer(
    request: Request, method: Any, asked: Any, shaped: Callable[[Any], Mapping[str, Any]]
) -> None:
    answer, headers = await _call(request, method, asked)
    request.respond(200, encode(shaped(answer)), headers)


def _in_their_words(refused: Refusal) -> Refusal:
    """An error of the service, which names its fields in the text."""
    message = _FIELD.sub(lambda match: _NAMES[match[0]], refused.message)
    return replace(refused, message=message, field=None)


# What is asked


def read_ledger(query: str) -> ListLedgerEntriesRequest:
    """The query of a ledger, without its question mark.

    Raises:
        Refused: naming the parameter.
    """
    found = parameters(query, ("limit", "cursor"))
    asked = ListLedgerEntriesRequest(page_token=found.get("cursor", ""))
    if len(asked.page_token) > MAX_CURSOR_CHARS:
        raise invalid(f"at most {MAX_CURSOR_CHARS} characters", "cursor")
    if limit := found.get("limit"):
        if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= MAX_LIMIT:
            raise invalid(f"must be a whole number, 1 to {MAX_LIMIT}", "limit")
        asked.page_size = int(limit)
    return asked


def read_usage(query: str, now: datetime) -> QueryUsageRequest:
    """The query of a summary, without its question mark. Absent: from the first of the month, until now.

    Raises:
        Refused: naming the parameter.
    """
    found = parameters(query, ("from", "to"))
    end = _instant("to", found["to"], timedelta(days=1)) if "to" in found else now.astimezone(UTC)
    if "from" in found:
        start = _instant("from", found["from"], timedelta())
        if start >= end:
            wrong = "to" if "to" in found else "from"
            raise invalid("must be after from" if "to" in found else "must be in the past", wrong)
    else:
        # Of the last moment that counts: the end itself may be the first of the next month.
        last = end - timedelta(microseconds=1)
        start = last.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return QueryUsageRequest(
        start_time=_timestamp(start),
        end_time=_timestamp(end),
        group_by=["provider"],
        page_size=USAGE_PAGE,
    )


def _instant(name: str, value: str, day: timedelta) -> datetime:
    """A date, or a date and a time. `day` is added to a date."""
    try:
        if _DAY.fullmatch(value):
            return _bounded(datetime.fromisoformat(value).replace(tzinfo=UTC) + day)
        if match := _INSTANT.fullmatch(value):
            date, time, sign, hours, minutes = match.groups()
            zone = f"{'-' if sign == '-' else '+'}{hours}:{minutes}" if hours else "+00:00"
            return _bounded(datetime.fromisoformat(f"{date}T{time}{zone}").astimezone(UTC))
    except (ValueError, OverflowError):
        pass
    raise invalid("must be an ISO 8601 date, or a date and a time", name)


def _bounded(instant: datetime) -> datetime:
    """Raises ValueError for what is before 1970."""
    if instant.year < 1970:
        raise ValueError(instant.year)
    return instant


def _timestamp(instant: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(instant)
    return timestamp


def _page(asked: QueryUsageRequest, token: str) -> QueryUsageRequest:
    following = QueryUsageRequest()
    following.CopyFrom(asked)
    following.page_token = token
    return following


# What is answered


def balance_object(balance: GetBalanceResponse) -> dict[str, Any]:
    """The body of a balance."""
    return {
        "balanceUsd": usd(balance.available_nanos + balance.held_nanos),
        "currency": "USD",
        "updatedAt": balance.update_time.ToJsonString()
        if balance.HasField("update_time")
        else NEVER,
    }


def ledger_object(page: ListLedgerEntriesResponse) -> dict[str, Any]:
    """The body of one page, newest first."""
    return {
        "entries": [_entry(entry) for entry in page.entries],
        "nextCursor": page.next_page_token or None,
    }


def _entry(entry: LedgerEntry) -> dict[str, Any]:
    after = entry.balance_after_nanos
    micros = after // NANOS_PER_MICRO - (after - entry.amount_nanos) // NANOS_PER_MICRO
    return {
        "id": entry.id,
        # Of a kind that is newer than this file nothing is known but that it changed the balance.
        "kind": KINDS.get(entry.kind, "adjustment"),
        "amountMicroUsd": str(micros),
        "metric": None,
        "provider": None,
        "sessionId": None,
        "createdAt": entry.create_time.ToJsonString() if entry.HasField("create_time") else NEVER,
    }


def usage_object(rows: Sequence[UsageRow], balance: GetBalanceResponse) -> dict[str, Any]:
    """The body of a summary: requests for sessions, and no minutes, since no calls are made here."""
    cost = usd(sum(row.cost.amount_nanos for row in rows))
    return {
        "totalSessions": sum(row.requests for row in rows),
        "totalMinutes": 0,
        "totalCost": cost,
        "minutesCost": 0,
        "minutesBilledSeconds": 0,
        "addOnCost": cost,
        "breakdown": [_usage_row(row) for row in rows if _is_told(row)],
        "balanceUsd": usd(balance.available_nanos + balance.held_nanos),
        "currency": "USD",
    }


def _is_told(row: UsageRow) -> bool:
    """Requests that came to no provider used nothing of anyone's."""
    tokens = row.input_tokens + row.output_tokens
    return bool(row.group.get("provider") or tokens or row.cost.amount_nanos)


def _usage_row(row: UsageRow) -> dict[str, Any]:
    return {
        "provider": row.group.get("provider", ""),
        "metric": "tokens",
        # The operator's keys ask the providers; callers bring none of their own.
        "keySource": "MANAGED",
        # The one of Speko's words that is for a charge, and not for minutes. What cost nothing is not charged.
        "chargeKind": "add_on" if row.cost.amount_nanos else None,
        "quantity": row.input_tokens + row.output_tokens,
        "cost": usd(row.cost.amount_nanos),
    }


def usd(nanos: int) -> msgspec.Raw:
    """An amount as a JSON number, to the last digit."""
    whole, rest = divmod(abs(nanos), NANOS_PER_USD)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return msgspec.Raw(f"{'-' if nanos < 0 else ''}{whole}{fraction}".encode())
