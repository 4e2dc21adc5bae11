"""`trunkline.v1.AccountService`: what an organisation has and has spent."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

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
from trunkline.v1.ledger_pb2 import LedgerEntry
from trunkline_server.accounts import ledger, usage
from trunkline_server.accounts.ledger import Entry
from trunkline_server.completion.service import Completions
from trunkline_server.core.errors import InvalidRequest, NotFound
from trunkline_server.core.plans import Caller, Scope
from trunkline_server.core.transactions import Storage
from trunkline_server.edges.grpc.call import Calls, Context, answer_unary
from trunkline_server.edges.grpc.pages import page_size_of, start_of

CURRENCY: Final = "USD"
LAST: Final = 2**62  # Above the number of any entry.
MICROS: Final = 1_000_000
MAX_FILTER_CHARS: Final = 256


class AccountServicer:
    """Reads only. Everyone sees their own organisation; who is no administrator is told that others do not exist."""

    def __init__(
        self,
        storage: Storage,
        completions: Completions,
        calls: Calls,
        now_us: Callable[[], int],
    ) -> None:
        self._storage = storage
        self._completions = completions
        self._calls = calls
        self._now_us = now_us

    async def GetBalance(self, request: GetBalanceRequest, context: Context) -> GetBalanceResponse:
        """What there is now."""
        call = self._calls.read("GetBalance", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.READ)
            organization = _organization(request.organization, caller)
            found = await self._storage.read(lambda: ledger.balance(organization))
            return GetBalanceResponse(
                organization=organization,
                available_nanos=found.available,
                held_nanos=found.held,
                currency_code=CURRENCY,
                update_time=timestamp(found.updated_us) if found.updated_us else None,
            )

    async def ListLedgerEntries(
        self, request: ListLedgerEntriesRequest, context: Context
    ) -> ListLedgerEntriesResponse:
        """Newest first."""
        call = self._calls.read("ListLedgerEntries", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.READ)
            organization = _organization(request.organization, caller)
            size = page_size_of(request.page_size)
            before = start_of(request.page_token) or LAST
            found = await self._storage.read(lambda: ledger.entries(organization, before, size + 1))
            page = found[:size]
            token = str(page[-1].number) if len(found) > size else ""
            return ListLedgerEntriesResponse(
                entries=[entry_message(entry) for entry in page], next_page_token=token
            )

    async def QueryUsage(self, request: QueryUsageRequest, context: Context) -> QueryUsageResponse:
        """Sums of the requests that began in the time named; of this calendar month where none is."""
        call = self._calls.read("QueryUsage", context)
        async with answer_unary(context, call):
            caller = await self._completions.enter(call, Scope.READ)
            organization = _organization(request.organization, caller)
            names = list(request.group_by)
            usage.check_groups(names)
            for i, name in enumerate(names):
                check_filter(f"group_by[{i}]", name)
            start_us, end_us = self._span(request)
            size = page_size_of(request.page_size)
            offset = start_of(request.page_token)
            found = await self._storage.read(
                lambda: usage.query(organization, start_us, end_us, names, offset, size + 1)
            )
            token = str(offset + size) if len(found) > size else ""
            return QueryUsageResponse(
                rows=[_usage_message(row) for row in found[:size]], next_page_token=token
            )

    def _span(self, request: QueryUsageRequest) -> tuple[int, int]:
        now_us = self._now_us()
        end_us = now_us + 1
        if request.HasField("end_time"):
            end_us = micros_of("end_time", request.end_time)
        if request.HasField("start_time"):
            start_us = micros_of("start_time", request.start_time)
        else:
            month = datetime.fromtimestamp((end_us - 1) / MICROS, UTC).replace(
                day=1, hour=0, minute=0, second=0, microsecond=0
            )
            start_us = int(month.timestamp()) * MICROS
        if not start_us < end_us:
            raise InvalidRequest("end_time", "is not after start_time")
        if end_us - start_us > usage.MAX_SPAN_US:
            raise InvalidRequest("start_time", "is more than 400 days before end_time")
        return start_us, end_us


def _organization(named: str, caller: Caller) -> str:
    if named and named != caller.organization and Scope.ADMIN not in caller.scopes:
        raise NotFound("no such organization")
    check_filter("organization", named)
    return named or caller.organization


def check_filter(field: str, value: str) -> None:
    """May this be looked for? PostgreSQL takes no NUL in a text. Raises: InvalidRequest."""
    if len(value) > MAX_FILTER_CHARS or "\0" in value:
        raise InvalidRequest(field, f"at most {MAX_FILTER_CHARS} characters, and no NUL")


def entry_message(entry: Entry) -> LedgerEntry:
    """A line of the journal. Its id is unique among all organisations."""
    return LedgerEntry(
        id=f"{entry.organization}-{entry.number}",
        kind=entry.kind,  # type: ignore[arg-type]  # The database holds the numbers of the enum.
        amount_nanos=entry.amount,
        balance_after_nanos=entry.balance_after,
        request_id=entry.request_id,
        description=entry.description,
        create_time=timestamp(entry.created_us),
    )


def _usage_message(row: usage.UsageRow) -> UsageRow:
    return UsageRow(
        group=dict(row.group),
        requests=row.requests,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cached_requests=row.cached_requests,
        cost=Cost(amount_nanos=row.cost, currency_code=CURRENCY, estimated=row.is_estimated),
    )


def timestamp(at_us: int) -> Timestamp:
    """An instant from microseconds since 1970."""
    return Timestamp(seconds=at_us // MICROS, nanos=at_us % MICROS * 1_000)


MAX_SECONDS: Final = (
    9_000_000_000_000 // 1_000
)  # The year 2255: whole microseconds of it fit every reader of JSON.


def micros_of(field: str, at: Timestamp) -> int:
    """Microseconds since 1970. Raises: InvalidRequest."""
    if not 0 <= at.seconds <= MAX_SECONDS or not 0 <= at.nanos < 1_000_000_000:
        raise InvalidRequest(field, "is no instant from 1970 to 2255")
    return at.seconds * MICROS + at.nanos // 1_000
