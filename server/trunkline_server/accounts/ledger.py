"""The ledger: what an organisation has, what its running requests hold, and what they were charged in the end.

An account has two balances. `available` may be spent; `held` is set aside for requests that run. A request holds what
it may cost at most before its first byte goes upstream, and is settled exactly once, however it ends: what it cost
leaves `held`, the rest goes back. Every change of what an organisation owns (`available + held`) is an entry in a
journal that is only ever appended to, numbered without gaps for each organisation, with the balance after it and the
counter account that the amount came from or went to, so that both sides of each movement are known.

Exactly once rests on one guard: a request's row leaves the state OPEN in the statement that says how. Whoever comes
second, a late owner or a recovery, finds no row and changes nothing.

Invariants, checked by `problems`: for each account `available >= 0`, `held` is the sum of its open requests, and
`available + held` is the sum of its entries, which is also what its last entry says.

Amounts are whole nanos (1e-9) of a US dollar.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from trunkline.v1.ledger_pb2 import LedgerKind
from trunkline_server.accounts.audit import AuditRecord, append
from trunkline_server.accounts.budgets import (
    BudgetClaim,
    check_budgets,
    reserve_budgets,
    settle_budgets,
)
from trunkline_server.accounts.idempotency import Claim, Replay, claim_key, end_key, seen_before
from trunkline_server.core.errors import (
    BudgetExhausted,
    IdempotencyConflict,
    InsufficientCredits,
    InvalidRequest,
)
from trunkline_server.core.transactions import Statement, Transaction

MAX_NANOS: Final = 10**18  # A billion dollars: sums of it stay within 64 bits.
MAX_PROBLEMS: Final = 100


class State(IntEnum):
    """Of a request's row."""

    OPEN = 0
    SETTLED = 1
    VOID = 2


@dataclass(frozen=True, slots=True)
class Payer:
    """On whose account a request runs."""

    organization: str
    project: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Hold:
    """A request that is about to go upstream.

    Attributes:
        id: of the completion; unique.
        request_id: the caller's name for it; may repeat.
        owner: the process that runs it.
        amount: what it may cost at most, as far as that is known. Set aside on the account where the plan is prepaid,
            and on the budgets that it counts for.
        input_price, output_price, cached_input_price: nanos per million tokens of whoever is asked first, for a
            recovery that knows no better. None: unknown.
        prompt_tokens: an estimate, for the same.
        labels: names and values, for grouping what was used.
    """

    id: str
    request_id: str
    payer: Payer
    owner: str
    amount: int
    now_us: int
    is_prepaid: bool = False
    budgets: tuple[BudgetClaim, ...] = ()
    prompt_tokens: int = 0
    input_price: int | None = None
    output_price: int | None = None
    cached_input_price: int | None = None
    provider: str = ""
    model: str = ""
    route: str = ""
    mode: str = ""
    end_user: str = ""
    session: str = ""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended, and what it used.

    Attributes:
        cost: nanos; None where a price is unknown.
        reason: OK, or the error's.
        response: the serialised answer, kept for its idempotency key; None where it may be run again.
        idempotency_key: the claim that ends with the request; empty where there is none.
    """

    now_us: int
    cost: int | None
    reason: str
    provider: str = ""
    model: str = ""
    route: str = ""
    mode: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    is_estimated: bool = False
    is_cached: bool = False
    response: bytes | None = None
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settlement did. `charged` is less than the cost where the account had no more, and 0 without a balance."""

    charged: int


_HOLD: Final = (
    "UPDATE accounts SET available = available - $2, held = held + $2, updated_at = $3"
    " WHERE organization = $1 AND available >= $2 RETURNING available"
)
_OPEN: Final = (
    "INSERT INTO requests (id, request_id, organization, project, key_id, state, owner, is_prepaid, held, reserved,"
    " budgets, created_at, input_price, output_price, cached_input_price, prompt_tokens, provider, model, route, mode,"
    " end_user, session) VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,"
    " $19, $20, $21)"
)
_LABEL: Final = "INSERT INTO request_labels (id, name, value) VALUES ($1, $2, $3)"
_EXTEND: Final = (
    "UPDATE requests SET held = held + $2, reserved = reserved + $3 WHERE id = $1 AND state = 0"
    " RETURNING organization"
)
_CLOSE: Final = (
    "UPDATE requests SET state = 1, settled_at = $2, cost = $3, charged = $4, input_tokens = $5, output_tokens = $6,"
    " cached_input_tokens = $7, is_estimated = $8, is_cached = $9, reason = $10, provider = $11, model = $12,"
    " route = $13, mode = $14 WHERE id = $1 AND state = 0"
    " RETURNING organization, is_prepaid, held, reserved, budgets, request_id"
)
_VOID: Final = (
    "UPDATE requests SET state = 2, settled_at = $2, reason = $3 WHERE id = $1 AND state = 0"
    " RETURNING organization, is_prepaid, held, reserved, budgets, request_id"
)
_CHARGED: Final = "UPDATE requests SET charged = $2 WHERE id = $1"
_RELEASE: Final = (
    "UPDATE accounts SET held = held - $2, available = available + $2, updated_at = $3 WHERE organization = $1"
    " RETURNING available"
)
_CHARGE: Final = (
    "UPDATE accounts SET held = held - $2, available = available + $2 - $3, entries = entries + 1, updated_at = $4"
    " WHERE organization = $1 RETURNING entries, available + held"
)
_ENTER: Final = (
    "INSERT INTO entries (organization, number, kind, counter, amount, balance_after, request_id, operation_id,"
    " description, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
)


def reserve(hold: Hold, claim: Claim | None = None) -> Transaction[Replay | None]:
    """Set aside what a request may cost. A `Replay`: its idempotency key has an answer already, and nothing is held.

    Raises:
        InsufficientCredits, BudgetExhausted, IdempotencyConflict, RequestInProgress.
    """
    payer = hold.payer
    if claim is not None:
        replay = yield from seen_before(claim, payer.organization, hold.now_us)
        if replay is not None:
            return replay
    yield from check_budgets(hold.budgets, hold.amount)
    held = hold.amount if hold.is_prepaid else 0
    if held and not (yield Statement(_HOLD, (payer.organization, held, hold.now_us))):
        raise InsufficientCredits
    yield from reserve_budgets(hold.budgets, hold.amount)
    yield Statement(
        _OPEN,
        (
            hold.id,
            hold.request_id,
            payer.organization,
            payer.project,
            payer.key_id,
            hold.owner,
            int(hold.is_prepaid),
            held,
            hold.amount,
            " ".join(budget.period_id for budget in hold.budgets),
            hold.now_us,
            hold.input_price,
            hold.output_price,
            hold.cached_input_price,
            hold.prompt_tokens,
            hold.provider,
            hold.model,
            hold.route,
            hold.mode,
            hold.end_user,
            hold.session,
        ),
    )
    for name, value in hold.labels:
        yield Statement(_LABEL, (hold.id, name, value))
    if claim is not None:
        yield from claim_key(claim, payer.organization, hold.id)
    return None


def extend(hold: Hold, amount: int, now_us: int) -> Transaction[bool]:
    """Set aside more for a request that runs. False: there is no more, and nothing has changed."""
    try:
        yield from check_budgets(hold.budgets, amount)
    except BudgetExhausted:
        return False
    held = amount if hold.is_prepaid else 0
    if held and not (yield Statement(_HOLD, (hold.payer.organization, held, now_us))):
        return False
    yield from reserve_budgets(hold.budgets, amount)
    if not (yield Statement(_EXTEND, (hold.id, held, amount))):
        raise RequestEnded
    return True


class RequestEnded(Exception):
    """A request was to be extended that a recovery has settled already."""


def settle(
    id_: str, outcome: Outcome, audit: AuditRecord | None = None
) -> Transaction[Settled | None]:
    """End a request: charge what it used, and give back the rest. None: it has ended already, and nothing changes."""
    cost = outcome.cost or 0
    rows = yield Statement(
        _CLOSE,
        (
            id_,
            outcome.now_us,
            outcome.cost,
            cost,
            outcome.input_tokens,
            outcome.output_tokens,
            outcome.cached_input_tokens,
            int(outcome.is_estimated),
            int(outcome.is_cached),
            outcome.reason,
            outcome.provider,
            outcome.model,
            outcome.route,
            outcome.mode,
        ),
    )
    if not rows:
        return None
    organization, is_prepaid, held, reserved, budgets, request_id = rows[0]
    charged = 0
    if is_prepaid:
        charged = yield from _charge(id_, organization, held, cost, request_id, outcome.now_us)
    if charged != cost:
        yield Statement(_CHARGED, (id_, charged))
    if budgets:
        yield from settle_budgets(budgets.split(" "), reserved, cost, outcome.now_us)
    if outcome.idempotency_key:
        yield from end_key(
            organization, outcome.idempotency_key, id_, outcome.response, outcome.now_us
        )
    if audit is not None:
        yield from append([audit])
    return Settled(charged)


def _charge(
    id_: str, organization: str, held: int, cost: int, request_id: str, now_us: int
) -> Transaction[int]:
    """Out of what was held, and what it lacks out of what is available. Returns what was charged."""
    if cost > held:
        if held:
            rows = yield Statement(_RELEASE, (organization, held, now_us))
        else:
            rows = yield Statement(_LOCK, (organization,))
        available = rows[0][0] if rows else 0
        held, cost = 0, min(cost, available)
    if not cost:
        if held:
            yield Statement(_RELEASE, (organization, held, now_us))
        return 0
    rows = yield Statement(_CHARGE, (organization, held, cost, now_us))
    number, balance = rows[0]
    yield Statement(
        _ENTER,
        (
            organization,
            number,
            LedgerKind.LEDGER_KIND_DEBIT,
            REVENUE,
            -cost,
            balance,
            id_,
            None,
            request_id,
            now_us,
        ),
    )
    return cost


REVENUE: Final = "revenue"
# What grants and the like come from, or go to.
COUNTERS: Final = {
    LedgerKind.LEDGER_KIND_GRANT: "promotion",
    LedgerKind.LEDGER_KIND_TOPUP: "payments",
    LedgerKind.LEDGER_KIND_REFUND: REVENUE,
    LedgerKind.LEDGER_KIND_ADJUSTMENT: "adjustments",
}
# Changes nothing, but on PostgreSQL nobody else changes the row before this transaction ends.
_LOCK: Final = "UPDATE accounts SET held = held WHERE organization = $1 RETURNING available"


def void(id_: str, reason: str, idempotency_key: str, now_us: int) -> Transaction[bool]:
    """End a request that never went upstream: all is given back. False: it has ended already."""
    rows = yield Statement(_VOID, (id_, now_us, reason))
    if not rows:
        return False
    organization, _, held, reserved, budgets, _ = rows[0]
    if held:
        yield Statement(_RELEASE, (organization, held, now_us))
    if budgets:
        yield from settle_budgets(budgets.split(" "), reserved, 0, now_us)
    if idempotency_key:
        yield from end_key(organization, idempotency_key, id_, None, now_us)
    return True


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A movement that no request causes.

    Attributes:
        amount: positive for what the organisation gets.
        operation_id: the same one is entered once; empty: always entered.
    """

    organization: str
    kind: "LedgerKind.ValueType"
    amount: int
    description: str
    operation_id: str
    now_us: int


_ENTRY: Final = (
    "SELECT number, kind, amount, balance_after, request_id, description, created_at FROM entries"
)
_IS_ACCOUNT: Final = "SELECT 1 FROM accounts WHERE organization = $1"
_MAKE_ACCOUNT: Final = (
    "INSERT INTO accounts (organization, updated_at) VALUES ($1, $2)"
    " ON CONFLICT (organization) DO NOTHING"
)
_ADJUST: Final = (
    "UPDATE accounts SET available = available + $2, entries = entries + 1, updated_at = $3"
    " WHERE organization = $1 AND available + $2 >= 0 AND available + held + $2 <= $4"
    " RETURNING entries, available + held"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal. `number` counts those of one organisation from 1."""

    organization: str
    number: int
    kind: int
    amount: int
    balance_after: int
    request_id: str
    description: str
    created_us: int


def adjust(adjustment: Adjustment, audit: AuditRecord) -> Transaction[Entry]:
    """Enter a movement, once for each operation id.

    Raises:
        InsufficientCredits: it would take more than there is.
        IdempotencyConflict: the operation id stands for another movement.
        InvalidRequest: there would be more than an account can hold.
    """
    change = adjustment
    operation = f"{change.organization} {change.operation_id}" if change.operation_id else None
    if operation is not None:
        rows = yield Statement(f"{_ENTRY} WHERE operation_id = $1", (operation,))
        if rows:
            known = Entry(change.organization, *rows[0])
            if (known.kind, known.amount) != (change.kind, change.amount):
                raise IdempotencyConflict
            return known
    move = Statement(_ADJUST, (change.organization, change.amount, change.now_us, MAX_NANOS))
    rows = yield move
    may_be_first = not rows and 0 <= change.amount <= MAX_NANOS
    if may_be_first and not (yield Statement(_IS_ACCOUNT, (change.organization,))):
        # Only now, because a refusal that has written costs all who came with it their common commit.
        yield Statement(_MAKE_ACCOUNT, (change.organization, change.now_us))
        rows = yield move
    if not rows:
        if change.amount < 0:
            raise InsufficientCredits("the account has less than that")
        raise InvalidRequest("amount_nanos", f"no account holds more than {MAX_NANOS} nanos")
    number, balance = rows[0]
    yield Statement(
        _ENTER,
        (
            change.organization,
            number,
            change.kind,
            COUNTERS[change.kind],
            change.amount,
            balance,
            "",
            operation,
            change.description,
            change.now_us,
        ),
    )
    yield from append([audit])
    return Entry(
        change.organization,
        number,
        change.kind,
        change.amount,
        balance,
        "",
        change.description,
        change.now_us,
    )


@dataclass(frozen=True, slots=True)
class Balance:
    """Of one organisation. An organisation without an account has nothing."""

    organization: str
    available: int = 0
    held: int = 0
    updated_us: int = 0


def balance(organization: str) -> Transaction[Balance]:
    """What there is now."""
    rows = yield Statement(
        "SELECT available, held, updated_at FROM accounts WHERE organization = $1", (organization,)
    )
    return Balance(organization, *rows[0]) if rows else Balance(organization)


def entries(organization: str, before: int, count: int) -> Transaction[list[Entry]]:
    """The newest `count` entries whose number is below `before`; newest first."""
    rows = yield Statement(
        f"{_ENTRY} WHERE organization = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
        (organization, before, count),
    )
    return [Entry(organization, *row) for row in rows]


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request whose owner may be gone, with what a recovery needs to settle it."""

    id: str
    owner: str
    created_us: int
    prompt_tokens: int
    input_price: int | None
    output_price: int | None
    provider: str
    model: str
    route: str
    mode: str


_OPEN_REQUEST: Final = (
    "SELECT r.id, r.owner, r.created_at, r.prompt_tokens, r.input_price, r.output_price, r.provider, r.model,"
    " r.route, r.mode FROM requests r"
)


def abandoned_requests(count: int, dead_before_us: int) -> Transaction[list[OpenRequest]]:
    """Open requests whose owner has not been heard of since `dead_before_us`; the oldest first."""
    rows = yield Statement(
        f"{_OPEN_REQUEST} LEFT JOIN instances i ON i.id = r.owner WHERE r.state = 0"
        " AND COALESCE(i.heartbeat_at, r.created_at) < $1 ORDER BY r.created_at LIMIT $2",
        (dead_before_us, count),
    )
    return [OpenRequest(*row) for row in rows]


def requests_of(owner: str, count: int, before_us: int) -> Transaction[list[OpenRequest]]:
    """Open requests of one process that began before an instant; the oldest first."""
    rows = yield Statement(
        f"{_OPEN_REQUEST} WHERE r.state = 0 AND r.owner = $1 AND r.created_at < $2"
        " ORDER BY r.created_at LIMIT $3",
        (owner, before_us, count),
    )
    return [OpenRequest(*row) for row in rows]


def owners(but: str) -> Transaction[list[str]]:
    """All processes that have open requests, but one."""
    rows = yield Statement(
        "SELECT DISTINCT owner FROM requests WHERE state = 0 AND owner <> $1", (but,)
    )
    return [row[0] for row in rows]


def beat(owner: str, now_us: int) -> Transaction[None]:
    """This process lives."""
    yield Statement(
        "INSERT INTO instances (id, heartbeat_at) VALUES ($1, $2)"
        " ON CONFLICT (id) DO UPDATE SET heartbeat_at = $2",
        (owner, now_us),
    )


def leave(owner: str) -> Transaction[None]:
    """This process has settled all it had."""
    yield Statement("DELETE FROM instances WHERE id = $1", (owner,))


_PROBLEMS: Final = (
    (
        "what is held is not the sum of the open requests",
        (
            "SELECT a.organization FROM accounts a LEFT JOIN (SELECT organization, SUM(held) AS total FROM requests"
            " WHERE state = 0 GROUP BY organization) o ON o.organization = a.organization"
            " WHERE a.held <> COALESCE(o.total, 0) LIMIT $1"
        ),
    ),
    (
        "the balance is not what the last entry says",
        (
            "SELECT a.organization FROM accounts a LEFT JOIN entries e ON e.organization = a.organization"
            " AND e.number = a.entries WHERE a.available + a.held <> COALESCE(e.balance_after, 0) LIMIT $1"
        ),
    ),
)
_DEEP_PROBLEMS: Final = (
    *_PROBLEMS,
    (
        "the balance is not the sum of the entries",
        (
            "SELECT a.organization FROM accounts a LEFT JOIN (SELECT organization, SUM(amount) AS total,"
            " COUNT(*) AS lines FROM entries GROUP BY organization) e ON e.organization = a.organization"
            " WHERE a.available + a.held <> COALESCE(e.total, 0) OR a.entries <> COALESCE(e.lines, 0) LIMIT $1"
        ),
    ),
    (
        "a settled request is not entered once with what it was charged",
        (
            "SELECT r.id FROM requests r LEFT JOIN (SELECT request_id, COUNT(*) AS lines, SUM(amount) AS total"
            " FROM entries WHERE request_id <> '' GROUP BY request_id) e ON e.request_id = r.id"
            " WHERE COALESCE(e.total, 0) <> -r.charged OR COALESCE(e.lines, 0) > 1"
            " OR (r.state <> 1 AND r.charged <> 0) LIMIT $1"
        ),
    ),
)


def problems(*, is_deep: bool = False) -> Transaction[list[str]]:
    """Invariants that do not hold, at most `MAX_PROBLEMS` of each. `is_deep` reads the whole journal."""
    found: list[str] = []
    for what, sql in _DEEP_PROBLEMS if is_deep else _PROBLEMS:
        rows: Sequence[Any] = yield Statement(sql, (MAX_PROBLEMS,))
        found += [f"{row[0]}: {what}" for row in rows]
    return found
