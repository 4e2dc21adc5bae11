"""Speko's balance, ledger and usage: what the service is asked, and what its clients read."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from tests.edges.http11 import serving
from tests.edges.observed import LIMIT_S
from tests.python_client.scripted import Failure, error_info
from tests.python_client.scripted_accounts import AccountGateway
from tests.support.service import service
from trunkline.v1.account_service_pb2 import (
    GetBalanceRequest,
    GetBalanceResponse,
    ListLedgerEntriesRequest,
    ListLedgerEntriesResponse,
    QueryUsageRequest,
    QueryUsageResponse,
    UsageRow,
)
from trunkline.v1.completion_pb2 import Cost
from trunkline.v1.ledger_pb2 import LedgerEntry, LedgerKind
from trunkline_server.edges.grpc.call import Calls
from trunkline_server.edges.grpc.local import LocalChannel
from trunkline_server.edges.grpc.methods import methods
from trunkline_server.edges.rest.app import RestApp
from trunkline_server.edges.rest.http import Refused
from trunkline_server.edges.rest.speko import SpekoShim
from trunkline_server.edges.rest.speko_accounts import ledger_object, read_ledger, read_usage, usd

BALANCE: Final = "/v1/credits/balance"
LEDGER: Final = "/v1/credits/ledger"
USAGE: Final = "/v1/usage"
NOW: Final = datetime(2026, 11, 22, 13, 30, 0, 5, tzinfo=UTC)


def at(text: str) -> Timestamp:
    """An instant."""
    timestamp = Timestamp()
    timestamp.FromJsonString(text)
    return timestamp


@dataclass
class Scripted:
    """The service behind a local channel: each call, whatever its method, is answered by the next step."""

    steps: Sequence[Message | Failure]
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)

    async def GetBalance(self, request: Any, context: Any) -> Any:
        return await self._play(request, context)

    async def ListLedgerEntries(self, request: Any, context: Any) -> Any:
        return await self._play(request, context)

    async def QueryUsage(self, request: Any, context: Any) -> Any:
        return await self._play(request, context)

    async def _play(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        await context.send_initial_metadata((("ratelimit-limit", "5"),))
        step = self.steps[min(len(self.requests), len(self.steps)) - 1]
        if isinstance(step, Failure):
            status = status_pb2.Status(code=step.code.value[0], message=step.message)
            for detail in step.details:
                status.details.add().Pack(detail)
            details = ("grpc-status-details-bin", status.SerializeToString())
            await context.abort(step.code, step.message, (details,))
        return step


@dataclass
class Shim:
    """The shim before a service that plays a script."""

    http: httpx.AsyncClient
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture(params=["local", "grpc"])
def wire(request: pytest.FixtureRequest) -> str:
    """How the shim reaches its service."""
    name: str = request.param
    return name


@asynccontextmanager
async def shim(wire: str, *steps: Message | Failure) -> AsyncIterator[Shim]:
    """What was asked is there when the block is left."""
    if wire == "grpc":
        with AccountGateway() as gateway:
            gateway.plays(*([step] for step in steps))
            async with (
                grpc.aio.insecure_channel(gateway.target) as channel,
                _shim(channel) as found,
            ):
                yield found
            found.requests += gateway.requests
            found.metadata += [dict(call.metadata) for call in gateway.calls]
        return
    servicer = Scripted(steps)
    calls = Calls(lambda: "1", lambda: "0" * 16)
    here = LocalChannel(methods({"trunkline.v1.AccountService": servicer}, calls))
    async with _shim(here) as found:
        yield found
    found.requests += servicer.requests
    found.metadata += servicer.metadata


@asynccontextmanager
async def _shim(channel: Any) -> AsyncIterator[Shim]:
    app = RestApp([SpekoShim(channel)], {})
    async with (
        serving(app) as served,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", timeout=LIMIT_S) as http,
    ):
        yield Shim(http)


# The balance


async def test_a_balance_is_what_is_owned_to_the_last_digit(wire):
    balance = GetBalanceResponse(
        organization="acme",
        available_nanos=9_007_199_000_000_000_001,
        held_nanos=254_740_993_000,
        currency_code="USD",
        update_time=at("2026-11-22T12:00:00.123456Z"),
    )
    async with shim(wire, balance) as running:
        response = await running.http.get(BALANCE, headers={"authorization": "Bearer key"})

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.text == (
        '{"balanceUsd":9007199254.740993001,"currency":"USD",'
        '"updatedAt":"2026-11-22T12:00:00.123456Z"}'
    )
    assert running.requests == [GetBalanceRequest()]
    assert running.metadata[0]["authorization"] == "Bearer key"


async def test_limits_go_out_with_the_answer():
    async with shim("local", GetBalanceResponse()) as running:
        response = await running.http.get(BALANCE)

    assert response.headers["ratelimit-limit"] == "5"


async def test_a_balance_that_never_changed_has_a_time_all_the_same(wire):
    async with shim(wire, GetBalanceResponse()) as running:
        response = await running.http.get(BALANCE)

    assert response.json() == {
        "balanceUsd": 0,
        "currency": "USD",
        "updatedAt": "1970-01-01T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, b"0"),
        (1, b"0.000000001"),
        (-1, b"-0.000000001"),
        (1_500_000_000, b"1.5"),
        (-12_000_000_000, b"-12"),
        (10_000_000_000, b"10"),
    ],
)
def test_dollars_are_written_exactly(nanos, text):
    assert bytes(usd(nanos)) == text


# The ledger


def entry(number: int, kind: LedgerKind.ValueType, amount: int, after: int) -> LedgerEntry:
    """An entry."""
    return LedgerEntry(
        id=f"e{number}",
        kind=kind,
        amount_nanos=amount,
        balance_after_nanos=after,
        request_id="req_1",
        description="why",
        create_time=at("2026-11-22T12:00:00Z"),
    )


async def test_a_ledger_is_told_in_spekos_words(wire):
    page = ListLedgerEntriesResponse(
        entries=[
            entry(5, LedgerKind.LEDGER_KIND_DEBIT, -2_000_000, 8_001_000_000),
            entry(4, LedgerKind.LEDGER_KIND_ADJUSTMENT, -1_000_000, 8_003_000_000),
            entry(3, LedgerKind.LEDGER_KIND_REFUND, 4_000_000, 8_004_000_000),
            entry(2, LedgerKind.LEDGER_KIND_TOPUP, 3_000_000_000, 8_000_000_000),
            entry(1, LedgerKind.LEDGER_KIND_GRANT, 5_000_000_000, 5_000_000_000),
        ],
        next_page_token="more+/=",
    )
    async with shim(wire, page) as running:
        response = await running.http.get(LEDGER)

    kinds = {"e5": "debit", "e4": "adjustment", "e3": "refund", "e2": "topup", "e1": "grant"}
    micros = ["-2000", "-1000", "4000", "3000000", "5000000"]
    assert response.json() == {
        "entries": [
            {
                "id": name,
                "kind": kind,
                "amountMicroUsd": amount,
                "metric": None,
                "provider": None,
                "sessionId": None,
                "createdAt": "2026-11-22T12:00:00Z",
            }
            for (name, kind), amount in zip(kinds.items(), micros, strict=True)
        ],
        "nextCursor": "more+/=",
    }


async def test_a_page_is_asked_for_by_limit_and_cursor(wire):
    async with shim(wire, ListLedgerEntriesResponse()) as running:
        first = await running.http.get(LEDGER)
        await running.http.get(LEDGER, params={"limit": "50", "cursor": "more+/="})
        await running.http.get(LEDGER, params={"limit": "", "cursor": ""})

    assert first.json() == {"entries": [], "nextCursor": None}
    assert running.requests == [
        ListLedgerEntriesRequest(),
        ListLedgerEntriesRequest(page_size=50, page_token="more+/="),
        ListLedgerEntriesRequest(),
    ]


@given(st.lists(st.integers(-(10**7), 10**7), max_size=50))
def test_micros_add_up_to_the_balance_and_are_never_a_micro_off(amounts):
    balance, entries = 0, []
    for number, amount in enumerate(amounts):
        balance += amount
        entries.append(entry(number, LedgerKind.LEDGER_KIND_ADJUSTMENT, amount, balance))

    told = ledger_object(ListLedgerEntriesResponse(entries=reversed(entries)))["entries"]

    micros = [int(each["amountMicroUsd"]) for each in told][::-1]
    assert sum(micros) == balance // 1000
    for number in range(len(amounts)):
        assert abs(sum(micros[number:]) * 1000 - sum(amounts[number:])) < 1000


def test_of_a_kind_that_is_newer_only_the_change_is_told():
    newer = LedgerEntry.FromString(b"\x0a\x01e\x10\x63")

    (told,) = ledger_object(ListLedgerEntriesResponse(entries=[newer]))["entries"]

    assert (told["id"], told["kind"]) == ("e", "adjustment")
    assert told["createdAt"] == "1970-01-01T00:00:00Z"


# Usage


def row(provider: str, requests: int, tokens: tuple[int, int], nanos: int | None) -> UsageRow:
    """What was used of one provider."""
    return UsageRow(
        group={"provider": provider},
        requests=requests,
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        cost=None if nanos is None else Cost(amount_nanos=nanos, currency_code="USD"),
    )


async def test_usage_is_summed_up_over_all_pages(wire):
    pages = [
        QueryUsageResponse(
            rows=[row("openai", 3, (100, 20), 1_000_000_001), row("local", 2, (7, 8), 0)],
            next_page_token="more",
        ),
        QueryUsageResponse(rows=[row("new", 1, (4, 5), None), row("", 9, (0, 0), None)]),
    ]
    balance = GetBalanceResponse(available_nanos=5_000_000_000, held_nanos=500_000_000)
    async with shim(wire, *pages, balance) as running:
        response = await running.http.get(f"{USAGE}?from=2026-11-01&to=2026-11-30")

    shared = {"metric": "tokens", "keySource": "MANAGED"}
    assert response.json() == {
        "totalSessions": 15,
        "totalMinutes": 0,
        "totalCost": 1.000000001,
        "minutesCost": 0,
        "minutesBilledSeconds": 0,
        "addOnCost": 1.000000001,
        "breakdown": [
            {
                "provider": "openai",
                **shared,
                "chargeKind": "add_on",
                "quantity": 120,
                "cost": 1.000000001,
            },
            {"provider": "local", **shared, "chargeKind": None, "quantity": 15, "cost": 0},
            {"provider": "new", **shared, "chargeKind": None, "quantity": 9, "cost": 0},
        ],
        "balanceUsd": 5.5,
        "currency": "USD",
    }
    asked = QueryUsageRequest(
        start_time=at("2026-11-01T00:00:00Z"),
        end_time=at("2026-12-01T00:00:00Z"),
        group_by=["provider"],
        page_size=1000,
    )
    following = QueryUsageRequest()
    following.CopyFrom(asked)
    following.page_token = "more"
    assert running.requests == [asked, following, GetBalanceRequest()]


async def test_a_summary_without_end_is_not_followed():
    async with shim("local", QueryUsageResponse(next_page_token="again")) as running:
        response = await running.http.get(USAGE)

    assert response.status_code == 500
    assert len(running.requests) == 20


async def test_without_dates_it_is_the_current_month(wire):
    before = datetime.now(UTC)
    async with shim(wire, QueryUsageResponse(), GetBalanceResponse()) as running:
        await running.http.get(USAGE)
    after = datetime.now(UTC)

    asked = running.requests[0]
    start = asked.start_time.ToDatetime(UTC)
    end = asked.end_time.ToDatetime(UTC)
    assert before <= end <= after
    assert start == end.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


RANGES: Final = {
    "nothing": ("", "2026-11-01T00:00:00Z", "2026-11-22T13:30:00.000005Z"),
    "empty": ("from=&to=", "2026-11-01T00:00:00Z", "2026-11-22T13:30:00.000005Z"),
    "a day": ("from=2026-11-02&to=2026-11-02", "2026-11-02T00:00:00Z", "2026-11-03T00:00:00Z"),
    "the last day": ("to=2026-10-31", "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"),
    "only a start": ("from=2025-01-01", "2025-01-01T00:00:00Z", "2026-11-22T13:30:00.000005Z"),
    "as JavaScript writes it": (
        "from=2026-11-02T10:00:00.123Z&to=2026-11-02T10:00:01.000Z",
        "2026-11-02T10:00:00.123Z",
        "2026-11-02T10:00:01Z",
    ),
    "as Python writes it": (
        "from=2026-11-02T10%3A00%3A00.123456%2B02%3A00&to=2026-11-02T10:00:00-0230",
        "2026-11-02T08:00:00.123456Z",
        "2026-11-02T12:30:00Z",
    ),
    "a plus as it is": (
        "from=2026-11-02T10:00:00+02:00&to=2026-11-02+10:00",
        "2026-11-02T08:00:00Z",
        "2026-11-02T10:00:00Z",
    ),
    "of no zone": (
        "from=2026-11-02T10:00&to=2026-11-02T10:00:30",
        "2026-11-02T10:00:00Z",
        "2026-11-02T10:00:30Z",
    ),
    "finer than is kept": (
        "from=2026-11-02T10:00:00.123456789Z",
        "2026-11-02T10:00:00.123456Z",
        "2026-11-22T13:30:00.000005Z",
    ),
}


@pytest.mark.parametrize("name", RANGES)
def test_times_are_read_as_utc(name):
    query, start, end = RANGES[name]

    asked = read_usage(query, NOW)

    assert (asked.start_time, asked.end_time) == (at(start), at(end))


DATE: Final = "must be an ISO 8601 date, or a date and a time"
UNREAD: Final[dict[str, tuple[str, str]]] = {
    f"{LEDGER}?limit=0": ("limit", "must be a whole number, 1 to 1000"),
    f"{LEDGER}?limit=1001": ("limit", "must be a whole number, 1 to 1000"),
    f"{LEDGER}?limit=-1": ("limit", "must be a whole number, 1 to 1000"),
    f"{LEDGER}?limit=1.5": ("limit", "must be a whole number, 1 to 1000"),
    f"{LEDGER}?limit=%D9%A3": ("limit", "must be a whole number, 1 to 1000"),
    f"{LEDGER}?limit={'9' * 10}": ("limit", "must be a whole number, 1 to 1000"),
    f"{LEDGER}?cursor={'x' * 1025}": ("cursor", "at most 1024 characters"),
    f"{LEDGER}?limit=1&limit=2": ("limit", "comes twice"),
    f"{LEDGER}?offset=1": ("offset", "must be one of limit, cursor"),
    f"{BALANCE}?organization=other": ("organization", "is no parameter of this"),
    f"{USAGE}?from=yesterday": ("from", DATE),
    f"{USAGE}?from=2026-02-30": ("from", DATE),
    f"{USAGE}?from=20261101": ("from", DATE),
    f"{USAGE}?from=2026-W01-1": ("from", DATE),
    f"{USAGE}?from=1794000000": ("from", DATE),
    f"{USAGE}?from=1969-12-31": ("from", DATE),
    f"{USAGE}?from=%D9%A22026-11-01": ("from", DATE),
    f"{USAGE}?to=9999-12-31": ("to", DATE),
    f"{USAGE}?to=2026-11-01T25:00": ("to", DATE),
    f"{USAGE}?to=2026-11-01T00:00:00%2B99:99": ("to", DATE),
    f"{USAGE}?to=0001-01-01T00:00:00%2B12:00": ("to", DATE),
    f"{USAGE}?from=2026-11-03&to=2026-11-02": ("to", "must be after from"),
    f"{USAGE}?from=2026-11-02T00:00Z&to=2026-11-02T00:00Z": ("to", "must be after from"),
    f"{USAGE}?from=2999-01-01": ("from", "must be in the past"),
    f"{USAGE}?start_date=2026-11-01": ("start_date", "must be one of from, to"),
}


async def test_what_can_not_be_read_is_named_and_never_asked():
    async with shim("local", GetBalanceResponse()) as running:
        found = {path: await running.http.get(path) for path in UNREAD}

    assert {path: response.json() for path, response in found.items()} == {
        path: {"error": f"{name}: {text}", "code": "VALIDATION_ERROR"}
        for path, (name, text) in UNREAD.items()
    }
    assert {response.status_code for response in found.values()} == {400}
    assert not running.requests


@given(st.text(max_size=60))
def test_any_query_is_read_or_refused(text):
    reasons = set()
    for read in (read_ledger, lambda query: read_usage(query, NOW)):
        for query in (text, f"limit={text}", f"cursor={text}", f"from={text}", f"to={text}"):
            try:
                read(query)
            except Refused as refused:
                reasons.add(refused.refusal.reason)

    assert reasons <= {"INVALID_REQUEST"}


# Errors


@pytest.mark.parametrize(
    ("path", "field", "named"),
    [
        (f"{LEDGER}?cursor=x", "page_token", "cursor"),
        (f"{LEDGER}?limit=1", "page_size", "limit"),
        (f"{USAGE}?from=2026-11-01", "start_time", "from"),
        (f"{USAGE}?from=2026-11-01", "end_time", "to"),
    ],
)
async def test_what_the_service_refuses_is_named_in_spekos_spelling(wire, path, field, named):
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description="is wrong")
    refused = Failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{field}: is wrong",
        [
            error_info("INVALID_REQUEST"),
            error_details_pb2.BadRequest(field_violations=[violation]),
        ],
    )
    async with shim(wire, refused) as running:
        response = await running.http.get(path)

    assert response.status_code == 400
    assert response.json() == {"error": f"{named}: is wrong", "code": "VALIDATION_ERROR"}


@pytest.mark.parametrize("path", [BALANCE, LEDGER, USAGE])
@pytest.mark.parametrize(
    ("code", "reason", "status", "word"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY", 401, "UNAUTHORIZED"),
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", 403, "FORBIDDEN"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", 429, "RATE_LIMITED"),
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", 503, "OVERLOADED"),
    ],
)
async def test_errors_have_a_status_and_a_code(wire, path, code, reason, status, word):
    async with shim(wire, Failure(code, "so it is", [error_info(reason)])) as running:
        response = await running.http.get(path)

    assert response.status_code == status
    assert response.json() == {"error": "so it is", "code": word}


async def test_a_balance_that_fails_after_the_usage_is_an_error(wire):
    lost = Failure(grpc.StatusCode.UNAVAILABLE, "gone", [error_info("UNAVAILABLE")])
    async with shim(wire, QueryUsageResponse(), lost) as running:
        response = await running.http.get(USAGE)

    assert (response.status_code, response.json()["code"]) == (503, "OVERLOADED")


@pytest.mark.parametrize("path", [BALANCE, LEDGER, USAGE])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_wrong_method_is_a_path_that_is_not_there(method, path):
    async with shim("local", GetBalanceResponse()) as running:
        response = await running.http.request(method, path)

    assert response.status_code == 404
    assert response.json() == {"error": f"no such path: {method} {path}", "code": "NOT_FOUND"}


async def test_a_whole_service_has_these_paths():
    async with (
        service(environment={"KEY": "sk-good"}, keys=[{"id": "k", "key_env": "KEY"}]) as running,
        httpx.AsyncClient(base_url=f"http://{running.http_address}", timeout=LIMIT_S) as http,
    ):
        found = [await http.get(path) for path in (BALANCE, LEDGER, USAGE)]

    for response in found:
        assert json.loads(response.content).keys() == {"error", "code"}
        assert response.json()["code"] != "NOT_FOUND"
