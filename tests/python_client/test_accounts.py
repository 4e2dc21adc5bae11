"""Keys, credits, usage and audit: both clients send the same and read the same."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.python_client.conftest import Awaited, Blocking, Connect
from tests.python_client.scripted import Failure, error_info
from tests.python_client.scripted_accounts import AccountGateway
from trunkline import (
    InvalidApiKey,
    NotFound,
    PermissionDenied,
    TrunklineError,
    nanos_from_usd,
    usd_from_nanos,
)
from trunkline.v1.account_service_pb2 import (
    GetBalanceRequest,
    GetBalanceResponse,
    ListLedgerEntriesRequest,
    ListLedgerEntriesResponse,
    QueryUsageRequest,
    QueryUsageResponse,
    UsageRow,
)
from trunkline.v1.admin_service_pb2 import (
    AdjustCreditsRequest,
    AdjustCreditsResponse,
    AuditEvent,
    CreateKeyRequest,
    CreateKeyResponse,
    Key,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    ListKeysRequest,
    ListKeysResponse,
    RevokeKeyRequest,
    RevokeKeyResponse,
    RotateKeyRequest,
    RotateKeyResponse,
)
from trunkline.v1.completion_pb2 import Cost
from trunkline.v1.ledger_pb2 import (
    LEDGER_KIND_ADJUSTMENT,
    LEDGER_KIND_GRANT,
    LEDGER_KIND_REFUND,
    LEDGER_KIND_TOPUP,
    LedgerEntry,
)

Both = Blocking | Awaited
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
AT_NOON = Timestamp(seconds=1_795_348_800)


@pytest.fixture
def gateway() -> Iterator[AccountGateway]:
    with AccountGateway() as running:
        yield running


@pytest.fixture
async def client(connect: Connect, gateway: AccountGateway) -> Both:
    return connect(gateway.target)


async def asked(client: Both, method: str, *args: Any, **options: Any) -> Any:
    """One call."""
    call = getattr(client.client, method)
    if isinstance(client, Blocking):
        return await asyncio.to_thread(call, *args, **options)
    return await call(*args, **options)


async def listed(client: Both, method: str, *args: Any, **options: Any) -> list[Any]:
    """A listing to its end."""
    call = getattr(client.client, method)
    if isinstance(client, Blocking):
        return await asyncio.to_thread(lambda: list(call(*args, **options)))
    return [found async for found in call(*args, **options)]


async def first(client: Both, method: str, *args: Any) -> Any:
    """The first of a listing that is left then."""
    found = getattr(client.client, method)(*args)
    if isinstance(client, Blocking):
        return await asyncio.to_thread(next, found)
    try:
        return await anext(found)
    finally:
        await found.aclose()


async def test_a_balance_is_the_gateways_own_message(gateway, client):
    balance = GetBalanceResponse(organization="acme", available_nanos=5, held_nanos=2)
    gateway.plays([balance])

    assert await asked(client, "get_balance") == balance
    assert await asked(client, "get_balance", "acme") == balance
    assert gateway.requests == [GetBalanceRequest(), GetBalanceRequest(organization="acme")]


LISTINGS: dict[str, tuple[list[Any], Any, Any]] = {
    "list_ledger_entries": (
        [LedgerEntry(id=name) for name in "abc"],
        lambda items, token: ListLedgerEntriesResponse(entries=items, next_page_token=token),
        ListLedgerEntriesRequest,
    ),
    "query_usage": (
        [
            UsageRow(group={"provider": name}, requests=3, cost=Cost(amount_nanos=7))
            for name in "abc"
        ],
        lambda items, token: QueryUsageResponse(rows=items, next_page_token=token),
        QueryUsageRequest,
    ),
    "list_keys": (
        [Key(id=name) for name in "abc"],
        lambda items, token: ListKeysResponse(keys=items, next_page_token=token),
        ListKeysRequest,
    ),
    "list_audit_events": (
        [AuditEvent(sequence=number) for number in range(3)],
        lambda items, token: ListAuditEventsResponse(events=items, next_page_token=token),
        ListAuditEventsRequest,
    ),
}


@pytest.mark.parametrize("method", LISTINGS)
async def test_a_listing_reads_all_pages_with_the_same_request(gateway, client, method):
    items, page, request = LISTINGS[method]
    gateway.plays([page(items[:2], "more")], [page([], "and more")], [page(items[2:], "")])

    assert await listed(client, method, organization="acme", page_size=2) == items
    assert gateway.requests == [
        request(organization="acme", page_size=2, page_token=token)
        for token in ("", "more", "and more")
    ]


@pytest.mark.parametrize("method", LISTINGS)
async def test_a_page_is_fetched_when_it_is_needed(gateway, client, method):
    items, page, _ = LISTINGS[method]
    gateway.plays([page(items[:2], "more")], [page(items[2:], "")])

    assert await first(client, method) == items[0]
    assert len(gateway.calls) == 1


async def test_usage_is_asked_for_by_time_and_group(gateway, client):
    gateway.plays([QueryUsageResponse()])
    zone = timezone(timedelta(hours=2))

    await listed(
        client,
        "query_usage",
        NOON.astimezone(zone),
        NOON + timedelta(microseconds=1),
        group_by=["provider", "label:team"],
    )

    assert gateway.requests == [
        QueryUsageRequest(
            start_time=AT_NOON,
            end_time=Timestamp(seconds=AT_NOON.seconds, nanos=1000),
            group_by=["provider", "label:team"],
        )
    ]


async def test_a_key_is_made_with_everything_that_was_said(gateway, client):
    made = CreateKeyResponse(key=Key(id="k"), secret="s")
    gateway.plays([made])

    found = await asked(
        client,
        "create_key",
        "acme",
        name="shop",
        plan="pro",
        scopes=["complete", "read"],
        project="p",
        expire_time=NOON,
    )

    assert found == made
    assert gateway.requests == [
        CreateKeyRequest(
            organization="acme",
            name="shop",
            plan="pro",
            scopes=["complete", "read"],
            project="p",
            expire_time=AT_NOON,
        )
    ]


async def test_a_key_that_never_expires_has_no_time(gateway, client):
    gateway.plays([CreateKeyResponse()])

    await asked(client, "create_key", "acme")

    assert gateway.requests == [CreateKeyRequest(organization="acme")]


async def test_an_overlap_of_nothing_is_not_no_overlap(gateway, client):
    rotated = RotateKeyResponse(key=Key(id="k"), secret="s2")
    gateway.plays([rotated])

    assert await asked(client, "rotate_key", "k") == rotated
    await asked(client, "rotate_key", "k", overlap=timedelta())
    await asked(client, "rotate_key", "k", overlap=timedelta(hours=1))
    assert gateway.requests == [
        RotateKeyRequest(key_id="k"),
        RotateKeyRequest(key_id="k", overlap=Duration()),
        RotateKeyRequest(key_id="k", overlap=Duration(seconds=3600)),
    ]


async def test_a_revoked_key_comes_back(gateway, client):
    key = Key(id="k", revoke_time=AT_NOON)
    gateway.plays([RevokeKeyResponse(key=key)])

    assert await asked(client, "revoke_key", "k") == key
    assert gateway.requests == [RevokeKeyRequest(key_id="k")]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("grant", LEDGER_KIND_GRANT),
        ("topup", LEDGER_KIND_TOPUP),
        ("refund", LEDGER_KIND_REFUND),
        ("adjustment", LEDGER_KIND_ADJUSTMENT),
    ],
)
async def test_an_adjustment_comes_back_as_its_entry(gateway, client, word, kind):
    entry = LedgerEntry(id="e", kind=kind, amount_nanos=-5)
    gateway.plays([AdjustCreditsResponse(entry=entry)])

    found = await asked(
        client, "adjust_credits", "acme", word, -5, description="why", idempotency_key="once"
    )

    assert found == entry
    assert gateway.requests == [
        AdjustCreditsRequest(
            organization="acme",
            kind=kind,
            amount_nanos=-5,
            description="why",
            idempotency_key="once",
        )
    ]


WRONG: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], type[Exception]]] = {
    "a debit": ("adjust_credits", ("acme", "debit", 1), {}, ValueError),
    "dollars for nanos": ("adjust_credits", ("acme", "grant", 0.5), {}, TypeError),
    "more nanos than there are": ("adjust_credits", ("acme", "grant", 2**63), {}, ValueError),
    "one scope as a string": ("create_key", ("acme",), {"scopes": "read"}, TypeError),
    "a time of no place": (
        "create_key",
        ("acme",),
        {"expire_time": datetime(2026, 11, 22)},  # noqa: DTZ001 - what is tested
        ValueError,
    ),
    "an overlap before now": ("rotate_key", ("k",), {"overlap": timedelta(-1)}, ValueError),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_cannot_be_sent_is_refused_here(gateway, client, name):
    method, args, options, error = WRONG[name]

    with pytest.raises(error):
        await asked(client, method, *args, **options)
    assert not gateway.calls


async def test_one_group_as_a_string_is_not_its_letters(gateway, client):
    with pytest.raises(TypeError, match="group_by"):
        await listed(client, "query_usage", group_by="day")
    assert not gateway.calls


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY", InvalidApiKey),
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", PermissionDenied),
        (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", NotFound),
    ],
)
@pytest.mark.parametrize("method", ["get_balance", "create_key", "list_keys"])
async def test_errors_are_of_the_same_tree(gateway, client, method, code, reason, error):
    gateway.plays([Failure(code, "no", [error_info(reason)])])

    with pytest.raises(TrunklineError) as raised:
        await (listed if method in LISTINGS else asked)(client, method, "acme")

    assert type(raised.value) is error


async def test_a_change_is_not_repeated_by_itself(gateway, client):
    gateway.plays([Failure(grpc.StatusCode.UNAVAILABLE)])

    for method, args in {"create_key": ("acme",), "adjust_credits": ("acme", "grant", 1)}.items():
        with pytest.raises(TrunklineError):
            await asked(client, method, *args)

    assert [call.method for call in gateway.calls] == ["CreateKey", "AdjustCredits"]


# Money


@pytest.mark.parametrize(
    ("usd", "nanos"),
    [
        ("0", 0),
        ("5", 5_000_000_000),
        (7, 7_000_000_000),
        ("+0.5", 500_000_000),
        ("-0.000000001", -1),
        ("0.1000000000000", 100_000_000),
        ("9007199254.740993001", 9_007_199_254_740_993_001),
        ("9223372036.854775807", 2**63 - 1),
        (Decimal("12.50"), 12_500_000_000),
        (Decimal("1e1"), 10_000_000_000),
    ],
)
def test_dollars_are_nanos_to_the_last(usd, nanos):
    assert nanos_from_usd(usd) == nanos
    assert usd_from_nanos(nanos) == Decimal(str(usd))


@pytest.mark.parametrize(
    "usd",
    [
        "", "-", ".5", "5.", "1e3", "1_000", "1,5", "$5", " 5", "5\n", "nan", "inf", "٣", "0.0000000001",
        "9223372036.854775808", "99999999999", Decimal("NaN"), Decimal("1e-10"), Decimal("1e30"),
    ],
)  # fmt: skip
def test_what_is_no_amount_is_refused(usd):
    with pytest.raises(ValueError, match="an amount"):
        nanos_from_usd(usd)


@pytest.mark.parametrize("usd", [0.5, True, None, b"5"])
def test_what_is_not_exact_is_refused(usd):
    with pytest.raises(TypeError):
        nanos_from_usd(usd)


def test_nanos_are_dollars_whatever_the_decimal_context():
    with localcontext() as context:
        context.prec = 3
        assert str(usd_from_nanos(-9_223_372_036_854_775_807)) == "-9223372036.854775807"
