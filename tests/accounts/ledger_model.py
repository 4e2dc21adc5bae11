"""What the ledger must do, said a second time: in memory, one step after the other, and without looking at it.

Written from what is promised (`reference/reliability.md` 2.10 and 2.11, and the docstrings of the ledger, the budgets
and the idempotency keys), not from how it is kept. A step is a value with all that it needs, so a walk that failed can
be run again without some of its steps.

`Model.apply` says which outcomes of a step are right, and takes its effect. There may be several: where a request
breaks two rules at once, any of their refusals will do. `Model.snapshot` is what the database must hold then.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from trunkline.v1.ledger_pb2 import LedgerKind
from trunkline_server.core.progress import Progressed

DAY_US: Final = 86_400_000_000
MAX_NANOS: Final = 10**18
MILLION: Final = 1_000_000
CHARS_PER_TOKEN: Final = 4

OPEN, SETTLED, VOID = 0, 1, 2
RUNNING, ANSWERED, FAILED = 0, 1, 2
WARNED, EXHAUSTED = 1, 2

COUNTERS: Final = {
    LedgerKind.LEDGER_KIND_GRANT: "promotion",
    LedgerKind.LEDGER_KIND_TOPUP: "payments",
    LedgerKind.LEDGER_KIND_REFUND: "revenue",
    LedgerKind.LEDGER_KIND_ADJUSTMENT: "adjustments",
}

# Steps


@dataclass(frozen=True)
class Limit:
    """A budget. Empty project and key: of the whole organisation."""

    id: str
    organization: str
    limit: int
    period: str
    project: str = ""
    key_id: str = ""
    is_hard: bool = True
    warn_at: int | None = None

    def starts_us(self, now_us: int) -> int:
        """When the period of this instant began, in UTC."""
        if self.period == "day":
            return now_us - now_us % DAY_US
        now = datetime.fromtimestamp(now_us // MILLION, UTC)
        return int(datetime(now.year, now.month, 1, tzinfo=UTC).timestamp()) * MILLION


@dataclass(frozen=True)
class Reserve:
    """A request comes. `key` is its idempotency key; empty: none."""

    id: str
    organization: str
    project: str
    key_id: str
    owner: str
    amount: int
    at_us: int
    is_prepaid: bool = True
    key: str = ""
    fingerprint: bytes = b""
    prompt_tokens: int = 0
    input_price: int | None = None
    output_price: int | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Extend:
    """It needs more."""

    request: Reserve
    amount: int
    at_us: int


@dataclass(frozen=True)
class Settle:
    """It ended, and used something. `response`: what its idempotency key is answered with from now on."""

    request: Reserve
    cost: int | None
    at_us: int
    reason: str = "OK"
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    is_estimated: bool = False
    is_cached: bool = False
    response: bytes | None = None
    is_audited: bool = False


@dataclass(frozen=True)
class Void:
    """It ended without having been sent."""

    request: Reserve
    at_us: int


@dataclass(frozen=True)
class Adjust:
    """Credits are given or taken."""

    organization: str
    kind: "LedgerKind.ValueType"
    amount: int
    operation_id: str
    at_us: int


@dataclass(frozen=True)
class Beat:
    """A process says that it lives."""

    owner: str
    at_us: int


@dataclass(frozen=True)
class Sweep:
    """Keys whose day has passed are forgotten."""

    at_us: int


@dataclass(frozen=True)
class Abandoned:
    """Who is open, though its process has not been heard of since?"""

    dead_before_us: int
    count: int


@dataclass(frozen=True)
class Recover:
    """A process starts, and settles what others left.

    Attributes:
        owner: the one that starts.
        dead: those that were killed beside it, and how far their requests had come; what is not in it had not begun.
        is_alone: then all others are dead too.
        stops_after: it is killed itself when it has written so often; None: it is not. Only with `is_alone` off.
    """

    owner: str
    dead: tuple[tuple[str, tuple[tuple[str, Progressed], ...]], ...]
    is_alone: bool
    stops_after: int | None
    at_us: int


@dataclass(frozen=True)
class Crash:
    """The step's transaction is stopped after so many of its statements, and taken back."""

    step: "Write"
    after: int


@dataclass(frozen=True)
class Leave:
    """The step's caller is gone before it hears the outcome, after so many turns of the event loop."""

    step: "Write"
    turns: int


Write = Reserve | Extend | Settle | Void | Adjust | Beat | Sweep
Step = Write | Crash | Leave | Recover | Abandoned

# What a step may come to: a value, or the name of what it raises.
Outcomes = frozenset[object]
CRASHED: Final = "Crashed"
ANYTHING: Final[Outcomes] = frozenset()


def _one(value: object) -> Outcomes:
    return frozenset((value,))


# State


@dataclass
class _Account:
    available: int = 0
    held: int = 0
    # Number, kind, counter, amount, balance after it, id of the request.
    entries: list[tuple[int, int, str, int, int, str]] = field(default_factory=list)

    def enter(self, kind: int, counter: str, amount: int, id_: str) -> tuple[int, int]:
        """Write a line. Returns its number and balance."""
        before = self.entries[-1][4] if self.entries else 0
        line = (len(self.entries) + 1, kind, counter, amount, before + amount, id_)
        self.entries.append(line)
        return line[0], line[4]


@dataclass
class _Request:
    reserve: Reserve
    held: int
    budgets: tuple[tuple[Limit, int], ...]
    reserved: int
    state: int = OPEN
    ended_us: int | None = None
    cost: int | None = None
    charged: int = 0
    reason: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    is_estimated: bool = False
    is_cached: bool = False


@dataclass
class _Key:
    fingerprint: bytes
    id: str
    expires_us: int
    state: int = RUNNING
    response: bytes | None = None


@dataclass
class _Period:
    reserved: int = 0
    spent: int = 0
    warned: int = 0


Snapshot = Mapping[str, set[tuple[Any, ...]]]


class Model:
    """The whole state. `limits` are the budgets that are configured."""

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.limits = limits
        self.accounts: dict[str, _Account] = {}
        self.requests: dict[str, _Request] = {}
        self.keys: dict[tuple[str, str], _Key] = {}
        self.periods: dict[tuple[str, int], _Period] = {}
        self.alerts: set[tuple[str, str, int, int, int]] = set()
        self.instances: dict[str, int] = {}
        self.operations: dict[tuple[str, str], tuple[int, int, tuple[object, ...]]] = {}
        self.audited = 0

    # What steps do

    def apply(self, step: Step) -> Outcomes:
        """Which outcomes are right. Empty: any."""
        match step:
            case Reserve():
                return self._reserve(step)
            case Extend():
                return self._extend(step)
            case Settle():
                return self._settle(step)
            case Void():
                return self._void(step)
            case Adjust():
                return self._adjust(step)
            case Beat():
                self.instances[step.owner] = step.at_us
                return _one(None)
            case Sweep():
                return self._sweep(step)
            case Abandoned():
                return _one(self._abandoned(step))
            case Recover():
                return self._recover(step)
            case Crash() | Leave():
                raise AssertionError("the walk knows whether the step within happened")

    def covering(
        self, organization: str, project: str, key_id: str, now_us: int
    ) -> tuple[tuple[Limit, int], ...]:
        """Budgets that count what this key spends now, and when their periods began."""
        return tuple(
            (limit, limit.starts_us(now_us))
            for limit in self.limits
            if limit.organization == organization
            and (not limit.project or limit.project == project)
            and (not limit.key_id or limit.key_id == key_id)
        )

    def _reserve(self, step: Reserve) -> Outcomes:
        refusals: set[object] = set()
        known = self.keys.get((step.organization, step.key)) if step.key else None
        if known is not None and known.expires_us > step.at_us:
            if known.fingerprint != step.fingerprint:
                return _one("IdempotencyConflict")
            if known.state == RUNNING:
                return _one("RequestInProgress")
            if known.state == ANSWERED:
                return _one(("replay", known.response))
        budgets = self.covering(step.organization, step.project, step.key_id, step.at_us)
        if self._exceeds(budgets, step.amount):
            refusals.add("BudgetExhausted")
        held = step.amount if step.is_prepaid else 0
        if held > self._available(step.organization):
            refusals.add("InsufficientCredits")
        if refusals:
            return frozenset(refusals)
        self._set_aside(step.organization, held, budgets, step.amount)
        self.requests[step.id] = _Request(step, held, budgets, step.amount)
        if step.key:
            self.keys[step.organization, step.key] = _Key(
                step.fingerprint, step.id, step.at_us + DAY_US
            )
        return _one(None)

    def _extend(self, step: Extend) -> Outcomes:
        """Nothing changes unless there is enough of everything, and the request still runs."""
        request = self.requests.get(step.request.id)
        reserve = step.request
        budgets = self.covering(
            reserve.organization, reserve.project, reserve.key_id, reserve.at_us
        )
        held = step.amount if reserve.is_prepaid else 0
        outcomes: set[object] = set()
        if self._exceeds(budgets, step.amount) or held > self._available(reserve.organization):
            outcomes.add(False)
        if request is None or request.state != OPEN:
            outcomes.add("RequestEnded")
        if outcomes:
            return frozenset(outcomes)
        assert request is not None
        self._set_aside(reserve.organization, held, budgets, step.amount)
        request.held += held
        request.reserved += step.amount
        return _one(True)

    def _settle(self, step: Settle) -> Outcomes:
        """Out of what was held, and what it lacks out of what is available, as far as that goes."""
        request = self.requests.get(step.request.id)
        if request is None or request.state != OPEN:
            return _one(None)
        cost = step.cost or 0
        reserve = request.reserve
        self._end(request, SETTLED, cost, step.reason, step.at_us)
        request.cost = step.cost
        request.model = step.model
        request.input_tokens, request.output_tokens = step.input_tokens, step.output_tokens
        request.is_estimated, request.is_cached = step.is_estimated, step.is_cached
        if reserve.is_prepaid:
            account = self.accounts.get(reserve.organization)
            charged = min(cost, account.available) if account is not None else 0
            request.charged = charged
            if charged:
                assert account is not None
                account.available -= charged
                account.enter(LedgerKind.LEDGER_KIND_DEBIT, "revenue", -charged, reserve.id)
        self._end_key(reserve, step.response, step.at_us)
        self.audited += step.is_audited
        return _one(("charged", request.charged))

    def _void(self, step: Void) -> Outcomes:
        request = self.requests.get(step.request.id)
        if request is None or request.state != OPEN:
            return _one(False)
        self._end(request, VOID, 0, "NEVER_SENT", step.at_us)
        request.model = "first"
        self._end_key(request.reserve, None, step.at_us)
        return _one(True)

    def _adjust(self, step: Adjust) -> Outcomes:
        operation = (step.organization, step.operation_id)
        if step.operation_id and operation in self.operations:
            kind, amount, entry = self.operations[operation]
            return _one(entry if (kind, amount) == (step.kind, step.amount) else CONFLICT)
        account = self.accounts.get(step.organization, _Account())
        if account.available + step.amount < 0:
            return _one("InsufficientCredits")
        if account.available + account.held + step.amount > MAX_NANOS:
            return _one("InvalidRequest")
        self.accounts[step.organization] = account
        account.available += step.amount
        number, balance = account.enter(step.kind, COUNTERS[step.kind], step.amount, "")
        entry = ("entry", number, step.kind, step.amount, balance)
        if step.operation_id:
            self.operations[operation] = (step.kind, step.amount, entry)
        self.audited += 1
        return _one(entry)

    def _sweep(self, step: Sweep) -> Outcomes:
        over = [name for name, key in self.keys.items() if key.expires_us <= step.at_us]
        for name in over:
            del self.keys[name]
        return _one(len(over))

    def _abandoned(self, step: Abandoned) -> tuple[str, ...]:
        """The oldest first. A process that never said that it lives is as old as its request."""
        silent = [
            request.reserve
            for request in self.requests.values()
            if request.state == OPEN
            and self.instances.get(request.reserve.owner, request.reserve.at_us)
            < step.dead_before_us
        ]
        silent.sort(key=lambda reserve: reserve.at_us)
        return tuple(reserve.id for reserve in silent[: step.count])

    def _recover(self, step: Recover) -> Outcomes:
        writes = self._recovery(step)
        for n, write in enumerate(writes):
            if n == step.stops_after:
                return _one(CRASHED)
            write()
        return _one(None)

    def _recovery(self, step: Recover) -> Iterator[Callable[[], object]]:
        """What it writes, one after the other."""
        yield lambda: self.instances.update({step.owner: step.at_us})
        progress = dict(step.dead)
        others = {r.reserve.owner for r in self.requests.values() if r.state == OPEN}
        owners = [*progress, *sorted(others - progress.keys() - {step.owner})]
        for owner in owners if step.is_alone else progress:
            known = dict(progress[owner]) if owner in progress else None
            for request in self._open_of(owner):
                yield lambda r=request, k=known: self._settle_for(r, k, step.at_us)  # type: ignore[misc]
            yield lambda o=owner: self.instances.pop(o, None)  # type: ignore[misc]
        yield lambda: self.instances.pop(step.owner)

    def _open_of(self, owner: str) -> list[_Request]:
        found = [
            request
            for request in self.requests.values()
            if request.state == OPEN and request.reserve.owner == owner
        ]
        return sorted(found, key=lambda request: request.reserve.at_us)

    def _settle_for(
        self, request: _Request, known: Mapping[str, Progressed] | None, at_us: int
    ) -> None:
        """As it was last seen, else its prompt alone; nothing where nobody had begun to answer.

        Nobody has its answer, so its key may be run again.
        """
        reserve = request.reserve
        seen = None if known is None else known.get(reserve.id, Progressed())
        if seen is None:
            prices = (reserve.input_price, reserve.output_price)
            tokens, model = (reserve.prompt_tokens, 0), "first"
        elif not seen.provider:
            prices, tokens, model = (0, 0), (0, 0), ""
        else:
            prices, model = (seen.input_price, seen.output_price), seen.model
            chars = seen.output_chars
            told = seen.output_tokens or (chars + CHARS_PER_TOKEN - 1) // CHARS_PER_TOKEN
            tokens = (seen.input_tokens or reserve.prompt_tokens, told)
        cost = None
        if prices[0] is not None and prices[1] is not None:
            cost = (tokens[0] * prices[0] + tokens[1] * prices[1]) // MILLION
        key = self.keys.get((reserve.organization, reserve.key))
        expires_us = key.expires_us if key is not None else 0
        self._settle(Settle(reserve, cost, at_us, "ABANDONED", model, *tokens, is_estimated=True))
        if key is not None:
            key.expires_us = expires_us  # It ended without a word from its owner.

    # What they share

    def _available(self, organization: str) -> int:
        account = self.accounts.get(organization)
        return account.available if account is not None else 0

    def _exceeds(self, budgets: tuple[tuple[Limit, int], ...], amount: int) -> bool:
        for limit, starts_us in budgets:
            period = self.periods.get((limit.id, starts_us), _Period())
            if limit.is_hard and period.reserved + period.spent + amount > limit.limit:
                return True
        return False

    def _set_aside(
        self, organization: str, held: int, budgets: tuple[tuple[Limit, int], ...], amount: int
    ) -> None:
        if held:
            self.accounts[organization].available -= held
            self.accounts[organization].held += held
        for limit, starts_us in budgets:
            self.periods.setdefault((limit.id, starts_us), _Period()).reserved += amount

    def _end(self, request: _Request, state: int, cost: int, reason: str, at_us: int) -> None:
        """Give back what was set aside, on the account and on budgets, and count the cost for these."""
        request.state, request.reason, request.ended_us = state, reason, at_us
        if request.held:
            account = self.accounts[request.reserve.organization]
            account.held -= request.held
            account.available += request.held
        for limit, starts_us in request.budgets:
            period = self.periods[limit.id, starts_us]
            period.reserved -= request.reserved
            period.spent += cost
            level = 0
            if period.spent >= limit.limit:
                level = EXHAUSTED
            elif limit.warn_at is not None and period.spent >= limit.warn_at:
                level = WARNED
            if level > period.warned:
                period.warned = level
                what = "budget.exhausted" if level == EXHAUSTED else "budget.warning"
                self.alerts.add((what, limit.id, starts_us, period.spent, limit.limit))

    def _end_key(self, reserve: Reserve, response: bytes | None, at_us: int) -> None:
        key = self.keys.get((reserve.organization, reserve.key))
        if reserve.key and key is not None and key.id == reserve.id:
            key.state = FAILED if response is None else ANSWERED
            key.response = response
            key.expires_us = at_us + DAY_US

    # What the database must hold

    def snapshot(self) -> Snapshot:
        """Rows by table."""
        return {
            "accounts": {
                (name, a.available, a.held, len(a.entries)) for name, a in self.accounts.items()
            },
            "entries": {(name, *line) for name, a in self.accounts.items() for line in a.entries},
            "requests": {_row(id_, request) for id_, request in self.requests.items()},
            "labels": {
                (id_, *label)
                for id_, request in self.requests.items()
                for label in request.reserve.labels
            },
            "keys": {
                (*name, k.fingerprint, k.state, k.id, k.response, k.expires_us)
                for name, k in self.keys.items()
            },
            "budgets": {(*name, p.reserved, p.spent, p.warned) for name, p in self.periods.items()},
            "alerts": self.alerts,
            "instances": set(self.instances.items()),
            "audit": {(self.audited,)},
        }

    def usage(self, organization: str, column: str) -> dict[str, tuple[int, int, int, int, int]]:
        """Requests, tokens in and out, cached ones and cost of what was settled, by one thing."""
        found: dict[str, tuple[int, int, int, int, int]] = {}
        for request in self.requests.values():
            reserve = request.reserve
            if request.state != SETTLED or reserve.organization != organization:
                continue
            name = {
                "key": reserve.key_id,
                "project": reserve.project,
                "model": request.model,
                "label:team": dict(reserve.labels).get("team", ""),
            }[column]
            now = found.get(name, (0, 0, 0, 0, 0))
            found[name] = (
                now[0] + 1,
                now[1] + request.input_tokens,
                now[2] + request.output_tokens,
                now[3] + request.is_cached,
                now[4] + (request.cost or 0),
            )
        return found


CONFLICT: Final = "IdempotencyConflict"


def _row(id_: str, request: _Request) -> tuple[Any, ...]:
    reserve = request.reserve
    return (
        id_,
        reserve.organization,
        reserve.project,
        reserve.key_id,
        request.state,
        reserve.owner,
        int(reserve.is_prepaid),
        request.held,
        request.reserved,
        reserve.at_us,
        request.ended_us,
        request.cost,
        request.charged,
        request.input_tokens,
        request.output_tokens,
        int(request.is_estimated),
        int(request.is_cached),
        request.reason,
        request.model if request.state != OPEN else "first",
    )
