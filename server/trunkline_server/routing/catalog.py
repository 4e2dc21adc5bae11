"""What can be asked for: models, their aliases, and routes."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from trunkline.v1.completion_spec_pb2 import Recovery
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import ModelNotFound
from trunkline_server.core.modes import MODE_ROUTE
from trunkline_server.core.panels import PanelRules

AUTO: Final = "auto"
MAX_SUGGESTIONS: Final = 1


class Strategy(StrEnum):
    """How the candidates of a route are ordered."""

    RANKED = "ranked"
    ORDERED = "ordered"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True)
class Route:
    """A name for several candidates. `candidates` and `fallbacks` are model ids, aliases or `provider/model`.

    `weights` go with `candidates`, one for each, under the strategy WEIGHTED. A panel's members are named in its rules,
    so it has no candidates. `plans`: ids of the plans whose holders may ask for it; None: everybody.
    """

    id: str
    candidates: tuple[str, ...]
    strategy: Strategy = Strategy.RANKED
    fallbacks: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    recovery: "Recovery.ValueType" = Recovery.RECOVERY_TERMINATE
    hedges: bool = False
    label: str = ""
    description: str = ""
    plans: frozenset[str] | None = None
    panel: PanelRules | None = None


@dataclass(frozen=True, slots=True)
class Members:
    """Who a panel's rules name. Empty where the rules leave it open.

    Attributes:
        proposers: of each, those who may be asked, the one that is meant first, by `Candidate.key`.
        aggregators: the same of the one that makes the answer.
    """

    rules: PanelRules
    proposers: tuple[tuple[str, ...], ...] = ()
    aggregators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """Who a name stands for, before anything is filtered or ranked.

    Attributes:
        groups: candidates in groups: the order within a group is open, that of the groups is fixed.
        pinned: one model was named.
        strategy: for the first group.
        weights: by `Candidate.key`.
        recovery, hedges: the route's own.
        min_window: tokens of the smallest context window among them.
        has_modes: some serve certain modes only, which counts unless one model was named.
        plans: the route's own.
        members: of a panel, who are all in `groups` too.
    """

    route: str
    groups: tuple[tuple[Candidate, ...], ...]
    pinned: bool
    strategy: Strategy = Strategy.RANKED
    weights: Mapping[str, float] = field(default_factory=dict)
    recovery: "Recovery.ValueType" = Recovery.RECOVERY_TERMINATE
    hedges: bool = False
    min_window: float = math.inf
    has_modes: bool = False
    plans: frozenset[str] | None = None
    members: Members | None = None


class Catalog:
    """Immutable once built. Ids win over aliases, routes over both: the configuration refuses clashes."""

    def __init__(self, candidates: Sequence[Candidate], routes: Sequence[Route]) -> None:
        self.candidates = tuple(candidates)
        self.routes = {route.id: route for route in routes}
        self.named_routes = tuple(r for r in routes if not r.id.startswith(MODE_ROUTE))
        self._by_name: dict[str, tuple[Candidate, ...]] = {}
        for candidate in candidates:
            for name in dict.fromkeys((candidate.id, *candidate.aliases, candidate.key)):
                self._by_name[name] = (*self._by_name.get(name, ()), candidate)
        known = frozenset(self._by_name)
        for candidate in candidates:
            upstream_name = f"{candidate.provider}/{candidate.model}"
            if upstream_name not in known:  # Otherwise it names another one that is called so here.
                self._by_name[upstream_name] = (*self._by_name.get(upstream_name, ()), candidate)
        self._selections: dict[str, Selection] = {}

    def deployments(self, name: str) -> tuple[Candidate, ...]:
        """All candidates that share an id or alias; one for `provider/model`; empty for anything else."""
        return self._by_name.get(name, ())

    def select(self, name: str) -> Selection:
        """Who `name` stands for.

        Raises:
            ModelNotFound: with the nearest known name.
        """
        selection = self._selections.get(name)
        if selection is None:
            selection = self._select(name)
            windows = [c.context_window_tokens for group in selection.groups for c in group]
            smallest = min((w for w in windows if w is not None), default=math.inf)
            has_modes = any(c.modes for group in selection.groups for c in group)
            selection = self._selections[name] = replace(
                selection, min_window=smallest, has_modes=has_modes and not selection.pinned
            )
        return selection

    def nearest(self, name: str) -> str:
        """The known name that looks most like it, or nothing."""
        known = [*self._by_name, *self.routes, AUTO]
        return next(iter(difflib.get_close_matches(name[:256], known, MAX_SUGGESTIONS, 0.5)), "")

    def _select(self, name: str) -> Selection:
        if name in self.routes:
            return self._of_route(self.routes[name])
        if name in ("", AUTO):
            return Selection("", self._all(), pinned=False)
        deployments = self.deployments(name)
        if not deployments:
            nearest = self.nearest(name)
            hint = f"; did you mean {nearest!r}?" if nearest else ""
            raise ModelNotFound(
                f"no model, alias or route is called {name[:128]!r}{hint}", nearest=nearest
            )
        fallbacks = (self.deployments(name) for c in deployments for name in c.fallbacks)
        return Selection("", _distinct([deployments, *fallbacks]), pinned=True)

    def _all(self) -> tuple[tuple[Candidate, ...], ...]:
        hosted = tuple(c for c in self.candidates if not c.embedded)
        embedded = tuple(c for c in self.candidates if c.embedded)
        return _distinct([hosted, embedded])

    def _of_panel(self, route: Route, rules: PanelRules) -> Selection:
        fallbacks = [c for name in route.fallbacks for c in self.deployments(name)]
        proposers = [self._with_stand_ins(name) for name in rules.proposers]
        aggregators = self._with_stand_ins(rules.aggregator) if rules.aggregator else ()
        if proposers:
            meant = [c for members in (*proposers, aggregators) for c in members]
            groups = _distinct([meant, fallbacks])
        else:
            groups = _distinct([(*aggregators, *self._all()[0]), *self._all()[1:], fallbacks])
        members = Members(
            rules,
            tuple(_keys([*members, *fallbacks]) for members in proposers),
            _keys(aggregators),
        )
        return Selection(
            route.id,
            groups,
            pinned=False,
            recovery=route.recovery,
            hedges=route.hedges,
            plans=route.plans,
            members=members,
        )

    def _with_stand_ins(self, name: str) -> tuple[Candidate, ...]:
        """A name's deployments, and those of the fallbacks that they name."""
        deployments = self.deployments(name)
        return (
            *deployments,
            *(c for d in deployments for n in d.fallbacks for c in self.deployments(n)),
        )

    def _of_route(self, route: Route) -> Selection:
        if route.panel is not None:
            return self._of_panel(route, route.panel)
        members = [self.deployments(name) for name in route.candidates]
        first = tuple(candidate for member in members for candidate in member)
        fallbacks = [self.deployments(name) for name in route.fallbacks]
        weights: dict[str, float] = {}
        for member, weight in zip(members, route.weights, strict=False):
            for candidate in member:
                # Deployments of one model share its weight.
                weights[candidate.key] = weight / len(member)
        groups = members if route.strategy is Strategy.ORDERED else [first]
        strategy = Strategy.RANKED if route.strategy is Strategy.ORDERED else route.strategy
        return Selection(
            route.id,
            _distinct([*groups, *fallbacks]),
            pinned=False,
            strategy=strategy,
            weights=weights,
            recovery=route.recovery,
            hedges=route.hedges,
            plans=route.plans,
        )


def _distinct(groups: Iterable[Sequence[Candidate]]) -> tuple[tuple[Candidate, ...], ...]:
    """Each candidate once, where it comes first; groups that are left empty vanish."""
    seen: set[str] = set()
    kept = []
    for group in groups:
        fresh = []
        for candidate in group:
            if candidate.key not in seen:
                seen.add(candidate.key)
                fresh.append(candidate)
        if fresh:
            kept.append(tuple(fresh))
    return tuple(kept)


def _keys(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(candidate.key for candidate in candidates))
