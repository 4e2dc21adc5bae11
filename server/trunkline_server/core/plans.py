"""What a plan allows, and who a caller is. Plans are configured; keys name one."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from trunkline_server.core.pressure import Criticality

ANONYMOUS: Final = "anonymous"
DEFAULT: Final = "default"
MAX_DEADLINE_S: Final = 600.0


class Scope(StrEnum):
    """What a key may be used for."""

    COMPLETE = "complete"  # Ask for answers, and see what could be asked for.
    READ = "read"  # See balances, usage and the ledger of its organisation.
    ADMIN = "admin"  # Everything, for every organisation.


USER_SCOPES: Final = frozenset({Scope.COMPLETE, Scope.READ})


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan. Limits are of an organisation's keys of this plan together, and of each address where there is no key.

    Attributes:
        requests_per_second: None for no limit; `burst` may come at once.
        tokens_per_minute: of input and output; None for no limit.
        concurrency: completions at once; None for no limit.
        routes: what may be asked for by name: models, aliases, routes, `provider/model`; None for everything.
        modes: None for all.
        max_deadline_s: a completion takes no longer.
        is_prepaid: credits are held and charged; otherwise what is used is only counted.
        refuses_unknown_price: where credits are held, a model without a known price is not asked.
    """

    id: str
    requests_per_second: float | None = None
    burst: int = 1
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    routes: frozenset[str] | None = None
    modes: frozenset[str] | None = None
    max_deadline_s: float = MAX_DEADLINE_S
    criticality: Criticality = Criticality.STANDARD
    is_prepaid: bool = False
    refuses_unknown_price: bool = True


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        organization: empty where nobody has a key.
        criticality: how much its requests matter when not all can be served.
    """

    key_id: str = ANONYMOUS
    organization: str = ""
    project: str = ""
    plan: Plan = field(default_factory=lambda: Plan(ANONYMOUS))
    scopes: frozenset[Scope] = USER_SCOPES
    criticality: Criticality = Criticality.STANDARD

    @property
    def owner(self) -> str:
        """Whose everything is that is kept: the organisation, or the key itself where it belongs to none."""
        return self.organization or f"key:{self.key_id}"
