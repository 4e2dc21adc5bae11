"""Budgets: what an organisation, a project or a key may spend in a day or a month, in UTC.

A hard budget refuses what it does not cover; any budget warns, once in a period, when so much of it is spent. The
counts live in the database, in the transactions of the ledger, so that several processes share them exactly. A warning
is written in the transaction that passes the mark, and delivered from there.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from trunkline_server.core.errors import BudgetExhausted
from trunkline_server.core.transactions import Statement, Transaction

MICROS: Final = 1_000_000
ALERT_PREFIX: Final = "alert_"


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget. Empty project and key: of the whole organisation.

    Attributes:
        id: names it; made of letters, digits, `.`, `_` and `-`.
        limit: nanos in a period.
        warn_at: nanos from which a warning is sent; None for none.
    """

    id: str
    organization: str
    limit: int
    period: Literal["day", "month"]
    project: str = ""
    key_id: str = ""
    is_hard: bool = True
    warn_at: int | None = None

    def covers(self, organization: str, project: str, key_id: str) -> bool:
        """Does what this key spends count for it?"""
        return (
            self.organization == organization
            and self.project in ("", project)
            and self.key_id in ("", key_id)
        )


@dataclass(frozen=True, slots=True)
class BudgetClaim:
    """A budget in one of its periods."""

    budget: Budget
    starts_us: int

    @property
    def period_id(self) -> str:
        """Names both."""
        warn_at = "" if self.budget.warn_at is None else str(self.budget.warn_at)
        return f"{self.budget.id}:{self.starts_us}:{self.budget.limit}:{warn_at}"


class Budgets:
    """All that are configured, found by who spends."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self._by_organization: dict[str, list[Budget]] = {}
        for budget in budgets:
            self._by_organization.setdefault(budget.organization, []).append(budget)

    def claims(
        self, organization: str, project: str, key_id: str, now_us: int
    ) -> tuple[BudgetClaim, ...]:
        """Those that a request of this key counts for, now."""
        budgets = self._by_organization.get(organization)
        if budgets is None:
            return ()
        return tuple(
            BudgetClaim(budget, _starts_us(budget.period, now_us))
            for budget in budgets
            if budget.covers(organization, project, key_id)
        )


def _starts_us(period: str, now_us: int) -> int:
    now = datetime.fromtimestamp(now_us / MICROS, UTC)
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "month":
        start = start.replace(day=1)
    return int(start.timestamp()) * MICROS


_SPENT: Final = "SELECT reserved + spent FROM budget_periods WHERE budget = $1 AND starts_at = $2"
_RESERVE: Final = (
    "INSERT INTO budget_periods (budget, starts_at, reserved) VALUES ($1, $2, $3)"
    " ON CONFLICT (budget, starts_at) DO UPDATE SET reserved = budget_periods.reserved + $3"
    " WHERE budget_periods.reserved + budget_periods.spent + $3 <= $4 RETURNING reserved"
)
_SETTLE: Final = (
    "UPDATE budget_periods SET reserved = reserved - $3, spent = spent + $4"
    " WHERE budget = $1 AND starts_at = $2 RETURNING spent, warned"
)
_WARNED: Final = "UPDATE budget_periods SET warned = $3 WHERE budget = $1 AND starts_at = $2"
_ALERT: Final = (
    "INSERT INTO alerts (id, body, created_at, next_at) VALUES ($1, $2, $3, $3)"
    " ON CONFLICT (id) DO NOTHING"
)
UNLIMITED: Final = 2**62


def check_budgets(claims: Sequence[BudgetClaim], amount: int) -> Transaction[None]:
    """Refuse before anything is written.

    Raises:
        BudgetExhausted.
    """
    for claim in claims:
        if not claim.budget.is_hard:
            continue
        rows = yield Statement(_SPENT, (claim.budget.id, claim.starts_us))
        if (rows[0][0] if rows else 0) + amount > claim.budget.limit:
            raise BudgetExhausted(budget=claim.budget.id)


def reserve_budgets(claims: Sequence[BudgetClaim], amount: int) -> Transaction[None]:
    """Set the amount aside.

    Raises:
        BudgetExhausted: after writes; another process was first.
    """
    for claim in claims:
        budget = claim.budget
        limit = budget.limit if budget.is_hard else UNLIMITED
        if not (yield Statement(_RESERVE, (budget.id, claim.starts_us, amount, limit))):
            raise BudgetExhausted(budget=budget.id)


def settle_budgets(
    periods: Iterable[str], reserved: int, cost: int, now_us: int
) -> Transaction[None]:
    """Spend what a request cost instead of what was set aside for it, and write the warnings that this causes."""
    for period in periods:
        budget, starts, limit, warn_at = period.split(":")
        rows = yield Statement(_SETTLE, (budget, int(starts), reserved, cost))
        if not rows:
            continue
        spent, warned = rows[0]
        level = _level(spent, int(limit), int(warn_at) if warn_at else None)
        if level > warned:
            yield Statement(_WARNED, (budget, int(starts), level))
            body = json.dumps(
                {
                    "type": "budget.exhausted" if level == EXHAUSTED else "budget.warning",
                    "budget": budget,
                    "period_start": datetime.fromtimestamp(int(starts) / MICROS, UTC).isoformat(),
                    "spent_nanos": spent,
                    "limit_nanos": int(limit),
                },
                separators=(",", ":"),
            )
            yield Statement(_ALERT, (f"{ALERT_PREFIX}{budget}_{starts}_{level}", body, now_us))


WARNING: Final = 1
EXHAUSTED: Final = 2


def _level(spent: int, limit: int, warn_at: int | None) -> int:
    if spent >= limit:
        return EXHAUSTED
    return WARNING if warn_at is not None and spent >= warn_at else 0
