"""The part of the composition root that names of several models need: routes, and the panels that answer under one."""

from collections.abc import Iterable, Sequence
from typing import Final

from trunkline.v1.completion_spec_pb2 import OptimizeFor, Recovery
from trunkline_server.app_orchestration import routes_of
from trunkline_server.config import (
    EMBEDDED_NAMES,
    ConfigError,
    PanelSettings,
    RouteSettings,
    Settings,
)
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.modes import Modes
from trunkline_server.core.panels import DEFAULT_SIZE, PanelRules
from trunkline_server.embedding.minilm import is_installed
from trunkline_server.routing.catalog import Catalog, Route, Strategy
from trunkline_server.routing.default_panels import DEFAULT_PANELS, POOR

RECOVERIES: Final = {
    "terminate": Recovery.RECOVERY_TERMINATE,
    "continue": Recovery.RECOVERY_CONTINUE,
}


def build_routes(
    settings: Settings, modes: Modes, candidates: Sequence[Candidate]
) -> tuple[list[Route], list[str]]:
    """Those of the configuration and of the modes, and the default panels; and what can't be used of them.

    Raises:
        ConfigError.
    """
    routes = [_route(route) for route in settings.routes] + routes_of(modes)
    missing = _unserved(settings, routes, candidates)
    routes += _default_panels(settings, candidates)
    if any(route.panel is not None for route in routes) and not is_installed():
        missing.append(
            'panels: answers are compared by their results alone (pip install "trunkline[embeddings]")'
        )
    return routes, missing


def _route(route: RouteSettings) -> Route:
    return Route(
        id=route.id,
        candidates=tuple(route.candidates),
        strategy=Strategy(route.strategy),
        fallbacks=tuple(route.fallbacks),
        weights=tuple(route.weights),
        recovery=RECOVERIES[route.recovery],
        hedges=route.hedge,
        label=route.label,
        description=route.description,
        plans=None if route.plans is None else frozenset(route.plans),
        panel=None if route.panel is None else _panel(route, route.panel),
    )


def _panel(route: RouteSettings, panel: PanelSettings) -> PanelRules:
    size = len(panel.proposers) or panel.size or DEFAULT_SIZE
    on = POOR if route.escalate_on is None else frozenset(route.escalate_on)
    return PanelRules(
        proposers=tuple(panel.proposers),
        size=size,
        # Two thirds, which is 2 of 3 and 4 of 6.
        quorum=panel.quorum or -(-2 * size // 3),
        grace_share=panel.grace_share,
        grace_s=panel.grace_s,
        deadline_s=panel.deadline_s,
        aggregator=panel.aggregator,
        critiques=panel.critique,
        stops_early=panel.early_stop,
        proposal_tokens=panel.proposal_tokens,
        optimize_for=OptimizeFor.Value(f"OPTIMIZE_FOR_{panel.optimize_for.upper()}"),
        escalate_to=route.escalate_to,
        escalate_on=on,
        max_escalations=route.max_escalations,
    )


def _default_panels(settings: Settings, candidates: Sequence[Candidate]) -> list[Route]:
    """Those whose names nothing else has, where there is anybody to sit on them."""
    if not settings.routing.default_panels or not candidates:
        return []
    taken = {route.id for route in settings.routes}
    taken |= {name for c in candidates for name in (c.id, *c.aliases)}
    return [route for route in DEFAULT_PANELS if route.id not in taken]


def _unserved(
    settings: Settings, routes: Iterable[Route], candidates: Sequence[Candidate]
) -> list[str]:
    """What is told of each route that nobody can serve.

    Raises:
        ConfigError: a route names a model that is not known.
    """
    catalog = Catalog(candidates, ())
    configured = {
        name for m in settings.models or () for name in (m.id, *m.aliases, f"{m.provider}/{m.id}")
    }
    unserved = []
    for route in routes:
        names = [*route.candidates, *route.fallbacks]
        if route.panel is not None:
            names += [*route.panel.proposers, *filter(None, [route.panel.aggregator])]
        for name in names:
            if not catalog.deployments(name) and name not in configured | EMBEDDED_NAMES:
                nearest = catalog.nearest(name)
                hint = f"; did you mean {nearest!r}?" if nearest else ""
                raise ConfigError([f"routes: {route.id!r} names the unknown model {name!r}{hint}"])
        if names and not any(catalog.deployments(name) for name in names):
            unserved.append(f"route {route.id}: none of its models is enabled")
    return unserved
