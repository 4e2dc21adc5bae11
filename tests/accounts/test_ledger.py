"""The ledger against a model of it, on both databases: any steps, side by side, repeated, and cut anywhere.

A walk is made of short worlds. Each begins with an empty ledger, and what it does comes from the number of the world
alone. After every batch of steps, which were written at the same time, what they came to and all that the database
holds must be what the model says, and the ledger must find no problem in itself. Where that fails, the world is run
again with fewer and fewer steps, and the shortest way to the failure is shown.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from structlog.testing import capture_logs

from tests.accounts.ledger_model import (
    ANYTHING,
    CRASHED,
    DAY_US,
    FAILED,
    MAX_NANOS,
    OPEN,
    RUNNING,
    Abandoned,
    Adjust,
    Beat,
    Crash,
    Extend,
    Leave,
    Limit,
    Model,
    Outcomes,
    Recover,
    Reserve,
    Settle,
    Snapshot,
    Step,
    Sweep,
    Void,
    Write,
)
from tests.faults.tables import Tables
from tests.storage.conftest import opened
from tests.support.postgres import Postgres
from trunkline.v1.ledger_pb2 import LedgerKind
from trunkline_server.accounts import ledger, usage
from trunkline_server.accounts.audit import AuditRecord
from trunkline_server.accounts.books import Books
from trunkline_server.accounts.budgets import Budget, Budgets
from trunkline_server.accounts.idempotency import KEPT_US, Claim, Replay, sweep_keys
from trunkline_server.accounts.ledger import Adjustment, Entry, Hold, Outcome, Payer, Settled
from trunkline_server.core.errors import StorageUnavailable, TrunklineError
from trunkline_server.core.progress import Progressed
from trunkline_server.core.transactions import MakeTransaction, Statement, Storage, Transaction
from trunkline_server.storage.upgrade import sqlite_path, upgrade

T = TypeVar("T")

WORLD_STEPS: Final = 100
MAX_BATCH: Final = 6
MAX_STATEMENTS: Final = 20  # Of one transaction.
SHORT_STEPS: Final = {"sqlite": 2_000, "postgres": 600}
LONG_STEPS: Final = 200_000
STEP_S: Final = 30.0  # No batch takes as long.
PAUSE_S: Final = 1.0
MAX_AGAIN: Final = 200
MAX_SHRINKS: Final = 300
LANES: Final = 4
SEED: Final = 2_026
LONG_SEED: Final = 1_000_000
REMARK: Final = "of these: "
STARTS_US: Final = 1_795_219_200_000_000  # 2026-11-21, so that the walk sees a month end.
HOUR_US: Final = DAY_US // 24

LIMITS: Final = (
    Limit("acme-day", "acme", 4_000, "day", warn_at=2_500),
    Limit("acme-month", "acme", 9_000, "month", is_hard=False, warn_at=5_000),
    Limit("acme-web", "acme", 1_500, "day", project="web"),
    Limit("acme-k1", "acme", 2_500, "month", key_id="k1", is_hard=False),
    Limit("initech-month", "initech", 5_000, "month", warn_at=1_000),
)
BUDGETS: Final = Budgets(
    Budget(
        limit.id,
        limit.organization,
        limit.limit,
        "day" if limit.period == "day" else "month",
        limit.project,
        limit.key_id,
        limit.is_hard,
        limit.warn_at,
    )
    for limit in LIMITS
)
ORGANIZATIONS: Final = ("acme", "globex", "initech")
OWNERS: Final = ("one", "two", "three")
TABLES_OF_THE_LEDGER: Final = (
    "accounts",
    "requests",
    "request_labels",
    "entries",
    "idempotency",
    "budget_periods",
    "alerts",
    "instances",
    "audit",
    "audit_head",
    "audit_private",
)


# Steps as the ledger takes them


def hold(step: Reserve) -> Hold:
    """The request, as admission has it."""
    payer = Payer(step.organization, step.project, step.key_id)
    return Hold(
        step.id,
        f"caller-{step.id}",
        payer,
        step.owner,
        step.amount,
        step.at_us,
        step.is_prepaid,
        BUDGETS.claims(step.organization, step.project, step.key_id, step.at_us),
        step.prompt_tokens,
        step.input_price,
        step.output_price,
        None,
        "first",
        "first",
        "route",
        "mode",
        labels=step.labels,
    )


def audit(at_us: int) -> AuditRecord:
    return AuditRecord(at_us, "test.done", "key", "acme", "account", "acme")


def transaction(step: Write) -> MakeTransaction[Any]:
    """What is written for it."""
    match step:
        case Reserve():
            claim = Claim(step.key, step.fingerprint, step.at_us + KEPT_US) if step.key else None
            return lambda: ledger.reserve(hold(step), claim)
        case Extend():
            return lambda: ledger.extend(hold(step.request), step.amount, step.at_us)
        case Settle():
            outcome = Outcome(
                step.at_us,
                step.cost,
                step.reason,
                "served",
                step.model,
                "route",
                "mode",
                step.input_tokens,
                step.output_tokens,
                is_estimated=step.is_estimated,
                is_cached=step.is_cached,
                response=step.response,
                idempotency_key=step.request.key,
            )
            record = audit(step.at_us) if step.is_audited else None
            return lambda: ledger.settle(step.request.id, outcome, record)
        case Void():
            request = step.request
            return lambda: ledger.void(request.id, "NEVER_SENT", request.key, step.at_us)
        case Adjust():
            change = Adjustment(
                step.organization, step.kind, step.amount, "", step.operation_id, step.at_us
            )
            return lambda: ledger.adjust(change, audit(step.at_us))
        case Beat():
            return lambda: ledger.beat(step.owner, step.at_us)
        case Sweep():
            return lambda: sweep_keys(step.at_us)


class Crashed(Exception):
    """The process is gone, as far as the database can tell."""


def cut(make: MakeTransaction[T], after: int) -> MakeTransaction[T]:
    """The same, stopped when so many of its statements have run; at the latest before its commit."""

    def run() -> Transaction[T]:
        whole = make()
        try:
            statement = next(whole)
            for _ in range(after):
                statement = whole.send((yield statement))
        except StopIteration:
            pass
        whole.close()
        raise Crashed

    return run


def refusing_early(whole: Transaction[T]) -> Transaction[T]:
    """The same. What it refuses it must refuse before it writes: else all that shared its commit would run again."""
    written = ""
    try:
        statement = next(whole)
        while True:
            rows = yield statement
            has_written = bool(rows) or "RETURNING" not in statement.sql
            if has_written and not statement.sql.startswith("SELECT"):
                written = statement.sql
            statement = whole.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except TrunklineError as error:
        if written:
            raise Differs(f"{error!r}, but it has written: {written}") from error
        raise


def plain(outcome: object) -> object:
    """An outcome as the model says it."""
    match outcome:
        case Replay(response):
            return ("replay", response)
        case Settled(charged):
            return ("charged", charged)
        case Entry():
            return ("entry", outcome.number, outcome.kind, outcome.amount, outcome.balance_after)
        case asyncio.CancelledError():
            return "Cancelled"
        case Exception():
            return type(outcome).__name__
    return outcome


# What the database holds

_LOOKS: Final = {
    "accounts": "SELECT organization, available, held, entries FROM accounts",
    "entries": (
        "SELECT organization, number, kind, counter, amount, balance_after, request_id FROM entries"
    ),
    "requests": (
        "SELECT id, organization, project, key_id, state, owner, is_prepaid, held, reserved, created_at, settled_at,"
        " cost, charged, input_tokens, output_tokens, is_estimated, is_cached, reason, model FROM requests"
    ),
    "labels": "SELECT id, name, value FROM request_labels",
    "keys": (
        "SELECT organization, key, fingerprint, state, id, response, expires_at FROM idempotency"
    ),
    "budgets": "SELECT budget, starts_at, reserved, spent, warned FROM budget_periods",
    "alerts": "SELECT body FROM alerts",
    "instances": "SELECT id, heartbeat_at FROM instances",
    "audit": "SELECT COUNT(*) FROM audit",
}


def look() -> Transaction[tuple[Snapshot, list[str]]]:
    """All of it, and the problems that the ledger finds."""
    found: dict[str, set[tuple[Any, ...]]] = {}
    for table, sql in _LOOKS.items():
        rows = yield Statement(sql)
        found[table] = {tuple(row) for row in rows}
        assert len(found[table]) == len(rows), f"a line of {table} stands there twice"
    running = {row[0] for row in found["requests"] if row[4] == OPEN}
    found["keys"] = {_key(row, running) for row in found["keys"]}
    found["alerts"] = {_alert(json.loads(body)) for (body,) in found["alerts"]}
    problems = yield from ledger.problems(is_deep=True)
    return found, problems


def _key(row: tuple[Any, ...], running: set[str]) -> tuple[Any, ...]:
    """A key is in use for as long as its request runs, and may be run again after one that left no answer."""
    organization, key, fingerprint, state, id_, response, expires_at = row
    if state == RUNNING and id_ not in running:
        state = FAILED
    return (organization, key, fingerprint, state, id_, response, expires_at)


def _alert(body: Mapping[str, Any]) -> tuple[str, str, int, int, int]:
    starts_s = datetime.fromisoformat(body["period_start"]).timestamp()
    return (
        body["type"],
        body["budget"],
        round(starts_s * 1_000_000),
        body["spent_nanos"],
        body["limit_nanos"],
    )


def clear() -> Transaction[None]:
    """An empty ledger."""
    for table in TABLES_OF_THE_LEDGER:
        yield Statement(f"DELETE FROM {table}")


def nothing() -> Transaction[None]:
    """Waits its turn."""
    yield Statement("SELECT 1")


# A world


class NoProgress:
    """How far requests have come is not kept."""

    def take(self, id_: str) -> int:
        return -1

    def answers(
        self,
        slot: int,
        id_: str,
        provider: str,
        model: str,
        prices: tuple[int | None, int | None, int | None],
        earlier: tuple[int, int, int | None],
    ) -> None:
        pass

    def count(self, slot: int, input_tokens: int, output_tokens: int, output_chars: int) -> None:
        pass

    def give_back(self, slot: int) -> None:
        pass


class Mortal:
    """The storage of a process that is killed when it has written so often; None: it is not."""

    def __init__(self, storage: Storage, writes: int | None) -> None:
        self._storage = storage
        self._writes = writes

    async def write(self, make: MakeTransaction[T]) -> T:
        if self._writes is not None:
            if not self._writes:
                raise Crashed
            self._writes -= 1
        return await self._storage.write(make)

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        return await self._storage.read(make)


Batch = tuple[Step, ...]


class Differs(AssertionError):
    """The ledger is not as the model says."""


@dataclass
class World:
    """A ledger and its model, which take the same steps."""

    storage: Storage
    model: Model = field(default_factory=lambda: Model(LIMITS))
    counts: Counter[str] = field(default_factory=Counter)

    async def take(self, batch: Batch) -> None:
        """All steps of it at once, then compare. Raises: Differs."""
        async with asyncio.timeout(STEP_S):
            if len(batch) == 1 and isinstance(batch[0], Recover | Abandoned):
                self._check(batch[0], await self._alone(batch[0]))
            else:
                await self._at_once([step for step in batch if _is_write(step)])
            found, problems = await self.storage.read(look)
        if problems:
            raise Differs(f"the ledger says itself: {problems}")
        expected = self.model.snapshot()
        for table, rows in expected.items():
            if rows != found[table]:
                raise Differs(
                    f"{table}\n  expected {_shown(rows - found[table])}\n  found    {_shown(found[table] - rows)}"
                )
        if any(row[1] < 0 or row[2] < 0 for row in found["accounts"]):
            raise Differs("an account has less than nothing")

    async def _at_once(self, steps: Sequence[Any]) -> None:
        """The order in which they came to their ends is the order in which the model takes them."""
        ends: dict[int, int] = {}
        clock = iter(range(1_000_000))

        def observed(n: int, make: MakeTransaction[T]) -> MakeTransaction[T]:
            def run() -> Transaction[T]:
                ends.pop(n, None)
                try:
                    result = yield from refusing_early(make())
                except Exception:
                    ends[n] = next(clock)
                    raise
                ends[n] = next(clock)
                return result

            return run

        async def one(n: int, step: Write | Crash | Leave) -> object:
            match step:
                case Crash():
                    make = cut(transaction(step.step), step.after)
                    return await self.storage.write(observed(n, make))
                case Leave():
                    make = observed(n, transaction(step.step))
                    writing = asyncio.ensure_future(self.storage.write(make))
                    for _ in range(step.turns):
                        await asyncio.sleep(0)
                    writing.cancel()
                    return await writing
            return await self.storage.write(observed(n, transaction(step)))

        outcomes = await asyncio.gather(
            *(one(n, step) for n, step in enumerate(steps)), return_exceptions=True
        )
        await self.storage.write(nothing)  # Whoever was left is done before that.
        for outcome in outcomes:
            if isinstance(outcome, StorageUnavailable):  # Nobody knows whether it happened.
                raise outcome
        for n in sorted(range(len(steps)), key=lambda n: ends.get(n, -1)):
            self._check(steps[n], outcomes[n], has_run=n in ends)

    def _check(self, step: Step, outcome: object, *, has_run: bool = True) -> None:
        shown = plain(outcome)
        match step:
            case Crash():
                allowed: Outcomes = frozenset((CRASHED,))
                if shown != CRASHED:  # It was refused before it came to that.
                    allowed = _refusals(self.model.apply(step.step))
            case Leave():
                allowed = self.model.apply(step.step) if has_run else ANYTHING
                allowed = ANYTHING if shown == "Cancelled" else allowed
            case _:
                allowed = self.model.apply(step)
        self.counts[_kind(step)] += 1
        remark = _remark(step, outcome)
        if remark:
            self.counts[f"{REMARK}{remark}"] += 1
        if allowed and shown not in allowed:
            expected = " or ".join(map(repr, sorted(allowed, key=repr)))
            raise Differs(f"{step}\n  expected {expected}\n  found    {shown!r}: {outcome!r}")

    async def _alone(self, step: Recover | Abandoned) -> object:
        if isinstance(step, Abandoned):
            found = await self.storage.read(
                lambda: ledger.abandoned_requests(step.count, step.dead_before_us)
            )
            return tuple(request.id for request in found)
        books = Books(
            Mortal(self.storage, step.stops_after),
            owner=step.owner,
            progress=NoProgress(),
            left_behind={owner: dict(known) for owner, known in step.dead},
            is_alone=step.is_alone,
            now_us=lambda: step.at_us,
        )
        try:
            await books.start()
            assert await books.close()
        except Crashed as error:
            return error
        return None

    async def ask(self, rng: random.Random) -> None:
        """What callers can ask for."""
        organization = rng.choice(ORGANIZATIONS)
        account = self.model.accounts.get(organization)
        column = rng.choice(("key", "project", "model", "label:team"))
        rows = await self.storage.read(
            lambda: usage.query(organization, 0, 2**62, [column], 0, 1_000)
        )
        used = {
            row.group[column]: (
                row.requests,
                row.input_tokens,
                row.output_tokens,
                row.cached_requests,
                row.cost,
            )
            for row in rows
        }
        lines = await self.storage.read(lambda: ledger.entries(organization, 2**62, 1_000))
        balance = await self.storage.read(lambda: ledger.balance(organization))

        expected = self.model.usage(organization, column)
        if used != expected:
            raise Differs(f"usage by {column}\n  expected {expected}\n  found    {used}")
        journal = account.entries[::-1] if account is not None else []
        if [line.number for line in lines] != [line[0] for line in journal]:
            raise Differs(f"the journal of {organization} is listed in another order")
        has = (account.available, account.held) if account is not None else (0, 0)
        if (balance.available, balance.held) != has:
            raise Differs(f"{organization} has {has}, and is told {balance}")


def _is_write(step: Step) -> bool:
    return not isinstance(step, Recover | Abandoned)


def _refusals(outcomes: Outcomes) -> Outcomes:
    return frozenset(o for o in outcomes if isinstance(o, str)) or frozenset(("no refusal",))


def _shown(rows: set[tuple[Any, ...]]) -> str:
    return ", ".join(map(repr, sorted(rows, key=repr)[:8])) or "nothing"


def _remark(step: Step, outcome: object) -> str:
    """On what it came to; empty: to what it comes to mostly."""
    match step, outcome:
        case _, Crashed():
            return ""
        case _, Exception():
            return type(outcome).__name__
        case _, Replay():
            return "answered from its key"
        case (Settle(), None) | (Void(), False):
            return "had ended before"
        case Extend(), False:
            return "no more to extend by"
    return ""


def _kind(step: Step) -> str:
    match step:
        case Crash():
            return f"crash in {_kind(step.step)}"
        case Leave():
            return "caller left"
        case Recover():
            return "recover" if step.stops_after is None else "crash in recover"
        case Settle(cost=None):
            return "settle, cost unknown"
        case Settle():
            return "settle"
        case Reserve(key=key) if key:
            return "reserve with a key"
    return type(step).__name__.lower()


# Where a walk goes


class Walk:
    """Chooses steps. It looks at the model, so that most of them do something; any step may come at any time."""

    def __init__(self, seed: int, model: Model) -> None:
        self._rng = random.Random(seed)
        self._model = model
        self._now_us = STARTS_US + self._rng.randrange(DAY_US)
        self._number = 0
        self._reserves: list[Reserve] = []
        self._adjusts: list[Adjust] = []

    def batch(self) -> Batch:
        """The next steps."""
        rng = self._rng
        if rng.random() < 0.03:
            self._now_us += rng.choice((HOUR_US, 6 * HOUR_US, DAY_US, 25 * HOUR_US))
        match rng.choices(("one", "many", "recover", "abandoned"), (55, 35, 5, 5))[0]:
            case "one":
                return (self._step(),)
            case "many":
                return tuple(self._step() for _ in range(rng.randint(2, MAX_BATCH)))
            case "abandoned":
                return (Abandoned(self._later() - rng.randrange(HOUR_US), rng.randint(1, 5)),)
        return (self._recover(),)

    def _later(self) -> int:
        self._now_us += self._rng.randint(1, 10_000_000)
        return self._now_us

    def _step(self) -> Step:
        step = self._write()
        match self._rng.random():
            case chance if chance < 0.14:
                return Crash(step, self._rng.randint(0, MAX_STATEMENTS))
            case chance if chance < 0.2:
                return Leave(step, self._rng.randint(0, 4))
        return step

    def _write(self) -> Write:
        rng = self._rng
        names = ("reserve", "extend", "settle", "void", "adjust", "beat", "sweep")
        name = rng.choices(names, (34, 12, 26, 8, 14, 4, 2))[0]
        if name in ("extend", "settle", "void") and not self._reserves:
            name = "adjust"
        match name:
            case "reserve":
                return self._reserve()
            case "extend":
                return Extend(self._known(), rng.choice((1, rng.randint(1, 900))), self._later())
            case "settle":
                return self._settle()
            case "void":
                return Void(self._known(), self._later())
            case "adjust":
                return self._adjust()
            case "beat":
                return Beat(rng.choice(OWNERS), self._later())
        return Sweep(self._later())

    def _reserve(self) -> Reserve:
        rng = self._rng
        self._number += 1
        organization = rng.choice(ORGANIZATIONS)
        account = self._model.accounts.get(organization)
        available = account.available if account is not None else 0
        amount = rng.choice((0, 1, available, available + 1, *(rng.randint(1, 1_500),) * 12))
        has_price = rng.random() < 0.7
        step = Reserve(
            f"r{self._number}",
            organization,
            rng.choice(("", "web", "batch")),
            rng.choice(("k1", "k2")),
            rng.choice(OWNERS),
            min(amount, MAX_NANOS),
            self._later(),
            is_prepaid=rng.random() < 0.8,
            key=rng.choice(("", "a", "b")),
            fingerprint=rng.choice((b"one", b"one", b"one", b"other")),
            prompt_tokens=rng.randint(0, 300),
            input_price=1_000_000 if has_price else None,
            output_price=2_000_000 if has_price else None,
            labels=tuple(
                (name, rng.choice("xyz")) for name in ("team", "job")[: rng.randint(0, 2)]
            ),
        )
        self._reserves.append(step)
        return step

    def _known(self) -> Reserve:
        """One that runs, most of the time; else one that has ended, or never began."""
        rng = self._rng
        running = [r.reserve for r in self._model.requests.values() if r.state == OPEN]
        return rng.choice(running if running and rng.random() < 0.75 else self._reserves[-30:])

    def _settle(self) -> Settle:
        rng = self._rng
        reserve = self._known()
        request = self._model.requests.get(reserve.id)
        held = request.reserved if request is not None else reserve.amount
        account = self._model.accounts.get(reserve.organization)
        available = account.available if account is not None else 0
        cost = rng.choice(
            (
                *(rng.randint(0, held),) * 4,
                held,
                held + 1,
                held + rng.randint(1, 500),
                held + available,
                held + available + rng.randint(1, 500),
                0,
                None,
            )
        )
        is_answered = rng.random() < 0.6
        return Settle(
            reserve,
            cost,
            self._later(),
            "OK" if is_answered else "UPSTREAM_INTERRUPTED",
            rng.choice(("m1", "m2")),
            rng.randint(0, 500),
            rng.randint(0, 500),
            rng.random() < 0.2,
            rng.random() < 0.1,
            f"answer to {reserve.id}".encode() if is_answered else None,
            rng.random() < 0.2,
        )

    def _adjust(self) -> Adjust:
        rng = self._rng
        if self._adjusts and rng.random() < 0.2:
            return rng.choice(self._adjusts)
        organization = rng.choice(ORGANIZATIONS)
        account = self._model.accounts.get(organization)
        available = account.available if account is not None else 0
        kind = rng.choice(
            (
                LedgerKind.LEDGER_KIND_GRANT,
                LedgerKind.LEDGER_KIND_TOPUP,
                LedgerKind.LEDGER_KIND_REFUND,
                LedgerKind.LEDGER_KIND_ADJUSTMENT,
                LedgerKind.LEDGER_KIND_ADJUSTMENT,
            )
        )
        amount = rng.choice((*(rng.randint(1, 4_000),) * 20, MAX_NANOS))
        if kind == LedgerKind.LEDGER_KIND_ADJUSTMENT and rng.random() < 0.7:
            amount = -rng.choice((1, rng.randint(1, 3_000), available or 1, available + 1))
        step = Adjust(
            organization, kind, amount, rng.choice(("", "", "o1", "o2", "o3")), self._later()
        )
        self._adjusts.append(step)
        return step

    def _recover(self) -> Recover:
        """The dead are told in an order. That of others is not known, so there is one of them at most."""
        rng = self._rng
        self._number += 1
        owners = rng.sample(OWNERS, len(OWNERS))
        is_alone = rng.random() < 0.2
        dead = owners[: 2 if is_alone else rng.randint(0, 2)]
        known = tuple((owner, tuple(self._progress(owner))) for owner in dead)
        stops_after = None if is_alone or rng.random() < 0.6 else rng.randint(0, 4)
        # A clock that was set back keeps nobody's credits.
        at_us = self._later() - rng.choice((0, 0, 0, 2 * HOUR_US))
        return Recover(f"recovery-{self._number}", known, is_alone, stops_after, at_us)

    def _progress(self, owner: str) -> Iterator[tuple[str, Progressed]]:
        rng = self._rng
        for id_, request in self._model.requests.items():
            if request.state != OPEN or request.reserve.owner != owner or rng.random() < 0.3:
                continue
            input_price, output_price = rng.choice(((1_000_000, 2_000_000), (None, None), (3, 7)))
            yield (
                id_,
                Progressed(
                    rng.choice(("", "served", "served")),
                    "m3",
                    input_price,
                    output_price,
                    None,
                    rng.choice((0, 40)),
                    rng.choice((0, 0, 25)),
                    rng.randint(0, 900),
                ),
            )


async def walk_world(storage: Storage, seed: int, counts: Counter[str]) -> None:
    """One world from its beginning to its end. Raises: Differs, with the shortest way there that was found."""
    await storage.write(clear)
    world = World(storage, counts=counts)
    walk = Walk(seed, world.model)
    asks = random.Random(seed)
    taken: list[Batch] = []
    steps = 0
    while steps < WORLD_STEPS:
        taken.append(walk.batch())
        steps += len(taken[-1])
        try:
            await world.take(taken[-1])
            if asks.random() < 0.1 or steps >= WORLD_STEPS:
                await world.ask(asks)
        except Differs as error:
            shortest, why = await shortened(storage, taken, str(error))
            lines = "\n".join(f"  {n}. {batch}" for n, batch in enumerate(shortest, 1))
            pytest.fail(f"world {seed}, after {steps} steps: {why}\nwhich takes\n{lines}", False)


async def shortened(
    storage: Storage, taken: Sequence[Batch], why: str
) -> tuple[Sequence[Batch], str]:
    """Without the steps that do not matter, as far as that is found in bounded time."""
    tries = 0
    size = max(1, len(taken) // 2)
    while size and tries < MAX_SHRINKS:
        at = 0
        while at < len(taken) and tries < MAX_SHRINKS:
            fewer = [*taken[:at], *taken[at + size :]]
            found = await failure(storage, fewer)
            taken, why, at = (fewer, found, at) if found else (taken, why, at + size)
            tries += 1
        size //= 2
    for at in range(len(taken)):
        for step in taken[at]:
            rest = tuple(other for other in taken[at] if other is not step)
            fewer = [*taken[:at], rest, *taken[at + 1 :]]
            found = await failure(storage, fewer) if rest else ""
            taken, why = (fewer, found) if found else (taken, why)
    return taken, why


async def failure(storage: Storage, batches: Sequence[Batch]) -> str:
    """What goes wrong with these; empty: nothing."""
    await storage.write(clear)
    world = World(storage)
    try:
        for batch in batches:
            await world.take(batch)
    except Differs as error:
        return str(error)
    return ""


async def walk(storage: Storage, seeds: Iterable[int], counts: Counter[str]) -> None:
    """One world after the other. Where the database could not answer in time, that world begins again."""
    for seed in seeds:
        while True:
            done: Counter[str] = Counter()
            try:
                await walk_world(storage, seed, done)
            except StorageUnavailable:
                counts[f"{REMARK}world begun again"] += 1
                assert counts[f"{REMARK}world begun again"] <= MAX_AGAIN
                await asyncio.sleep(PAUSE_S)
            else:
                counts += done
                break


def backend(url: str) -> str:
    return "sqlite" if sqlite_path(url) is not None else "postgres"


def report(tables: Tables, name: str, counts: Counter[str], seconds: float) -> int:
    """Returns how many steps there were."""
    remarks = Counter({kind: n for kind, n in counts.items() if kind.startswith(REMARK)})
    steps = (counts - remarks).total()
    table = tables.table(f"Steps of the ledger against its model: {name}", ("step", "times"))
    for kind in sorted(counts - remarks):
        table.add(kind, f"{counts[kind]:,}")
    table.add("all", f"{steps:,}")
    for kind in sorted(remarks):
        table.add(kind, f"{counts[kind]:,}")
    table.add("seconds", f"{seconds:,.0f}")
    table.add("problems", 0)
    return steps


@pytest.mark.once
async def test_whatever_is_done_the_ledger_is_as_its_model_says(url, tables):
    steps = SHORT_STEPS[backend(url)]
    counts: Counter[str] = Counter()
    began_s = time.monotonic()
    with capture_logs():  # A line for each request that is recovered.
        async with opened(url) as storage:
            await walk(storage, range(SEED, SEED + steps // WORLD_STEPS), counts)

    done = report(tables, f"{backend(url)}, short", counts, time.monotonic() - began_s)
    assert done >= steps


GRANT: Final = Adjust("acme", LedgerKind.LEDGER_KIND_GRANT, 10_000, "first", STARTS_US)
REQUEST: Final = Reserve(
    "r1",
    "acme",
    "web",
    "k1",
    "one",
    900,
    STARTS_US + 1,
    key="a",
    fingerprint=b"one",
    prompt_tokens=100,
    input_price=1_000_000,
    output_price=2_000_000,
    labels=(("team", "x"), ("job", "y")),
)
OTHER: Final = replace(REQUEST, id="r2", key="b", amount=100, at_us=STARTS_US + 2)
DEARER: Final = Settle(
    REQUEST, 3_000, STARTS_US + 3, model="m1", response=b"answer", is_audited=True
)


@pytest.mark.parametrize(
    "step",
    [
        replace(GRANT, operation_id="second"),
        replace(GRANT, operation_id="second", organization="globex"),
        OTHER,
        Extend(REQUEST, 100, STARTS_US + 3),
        DEARER,
        replace(DEARER, cost=10, response=None),
        Void(REQUEST, STARTS_US + 3),
        Beat("one", STARTS_US + 3),
        Sweep(STARTS_US + 2 * DAY_US),
    ],
    ids=[
        "adjust",
        "first adjust",
        "reserve",
        "extend",
        "settle dearer",
        "settle cheaper",
        "void",
        "beat",
        "sweep",
    ],
)
async def test_a_transaction_that_is_cut_anywhere_leaves_nothing(url, step):
    async with opened(url) as storage:
        world = World(storage)
        await world.take((GRANT,))
        await world.take((REQUEST,))

        for after in range(MAX_STATEMENTS + 1):
            await world.take((Crash(step, after),))

        before = world.model.snapshot()
        statements: list[Statement] = []
        await storage.write(counted(transaction(step), statements))
        world.model.apply(step)
        found, problems = await storage.read(look)
    assert len(statements) <= MAX_STATEMENTS
    assert problems == []
    assert found == world.model.snapshot() != before


def counted(make: MakeTransaction[T], statements: list[Statement]) -> MakeTransaction[T]:
    """The same, and its statements."""

    def run() -> Transaction[T]:
        statements.clear()
        whole = make()
        try:
            statement = next(whole)
            while True:
                statements.append(statement)
                statement = whole.send((yield statement))
        except StopIteration as stop:
            result: T = stop.value
            return result

    return run


async def test_what_a_dead_process_held_is_given_back_though_the_clock_was_set_back(url):
    async with opened(url) as storage:
        world = World(storage)
        for batch in (
            GRANT,
            REQUEST,
            Recover("two", (("one", ()),), False, None, STARTS_US - DAY_US),
        ):
            await world.take((batch,))
        balance = await storage.read(lambda: ledger.balance("acme"))

    assert (balance.available, balance.held) == (10_000, 0)


async def test_what_a_full_account_gets_back_does_not_keep_it_from_giving(url):
    steps = (
        replace(GRANT, amount=MAX_NANOS),
        REQUEST,
        replace(GRANT, amount=REQUEST.amount, operation_id="beyond"),
        Void(REQUEST, STARTS_US + 3),
        replace(GRANT, kind=LedgerKind.LEDGER_KIND_ADJUSTMENT, amount=-1, operation_id="less"),
    )
    async with opened(url) as storage:
        world = World(storage)
        for step in steps:
            await world.take((step,))
        balance = await storage.read(lambda: ledger.balance("acme"))

    assert balance.available == MAX_NANOS - 1


async def test_the_key_of_a_request_whose_process_died_may_be_run_again(url):
    again = replace(REQUEST, id="r2", at_us=STARTS_US + 20)
    async with opened(url) as storage:
        world = World(storage)
        await world.take((GRANT,))
        await world.take((REQUEST,))
        await world.take((Recover("two", (("one", ()),), False, None, STARTS_US + 10),))

        await world.take((again,))
        await world.take((replace(DEARER, at_us=STARTS_US + 30),))  # The dead one was only late.
        await world.take((replace(DEARER, request=again, at_us=STARTS_US + 40),))

        replay = await storage.write(transaction(replace(again, id="r3", at_us=STARTS_US + 50)))
    assert replay == Replay(b"answer")
    assert world.model.requests["r1"].charged == 0
    assert world.model.requests["r2"].charged == 3_000


@pytest.fixture
def urls(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> list[str]:
    """Several databases of one kind, because most of the time of one is spent in waiting for it."""
    if sqlite_path(url) is not None:
        found = [f"sqlite:{tmp_path / f'lane-{n}.db'}" for n in range(LANES)]
        for each in found:
            upgrade(each)
        return found
    server: Postgres = request.getfixturevalue("postgres")
    return [server.migrated() for _ in range(LANES)]


@pytest.mark.slow
async def test_whatever_is_done_in_200_000_steps_the_ledger_is_as_its_model_says(urls, tables):
    counts: Counter[str] = Counter()
    began_s = time.monotonic()
    with capture_logs():
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as lanes:
            for n, url in enumerate(urls):
                storage = await stack.enter_async_context(opened(url))
                seeds = range(LONG_SEED + n, LONG_SEED + LONG_STEPS // WORLD_STEPS, LANES)
                lanes.create_task(walk(storage, seeds, counts))

    done = report(tables, backend(urls[0]), counts, time.monotonic() - began_s)
    assert done >= LONG_STEPS
