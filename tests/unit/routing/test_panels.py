"""Who sits on a panel: those whom its rules name, or the best that there are; and who stands in for whom."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest

from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    OptimizeFor,
    RoutingConstraints,
    Tool,
    ToolOptions,
)
from trunkline.v1.message_pb2 import Media, Message, Part, Role
from trunkline_server.core.candidate import Candidate, Capability, Plan
from trunkline_server.core.errors import CapabilityUnsupported, NoEligibleProvider
from trunkline_server.core.panels import PanelRules
from trunkline_server.routing.catalog import Catalog, Members, Route
from trunkline_server.routing.default_panels import DEFAULT_PANELS
from trunkline_server.routing.experience import Experience
from trunkline_server.routing.panels import panel_of
from trunkline_server.routing.router import Router
from trunkline_server.routing.scores import Scores

BLIND: Final = frozenset(Capability) - {Capability.VISION}
PICTURE: Final = Part(image=Media(url="https://x.test/a.png"))


def candidate(name: str, provider: str = "p", **more: Any) -> Candidate:
    """A deployment."""
    return Candidate(provider, name, name, **more)


A, B, C, D = (candidate(name) for name in "abcd")
A2 = candidate("a", "q")
LOCAL = candidate("local", "local", embedded=True)


def seats(
    ranked: Sequence[Candidate],
    rules: PanelRules,
    accuracy: Mapping[str, float] | None = None,
    **members: Any,
) -> tuple[list[str], str, int]:
    """Of each proposer, and of the aggregator, the keys in the order in which they are asked; and the quorum."""
    known = accuracy or {}
    plan = Plan("r", "r", "", tuple(ranked), hedges=True)
    found = panel_of(Members(rules, **members), plan, lambda c: known.get(c.id, 0.5))
    panel = found.panel
    assert panel is not None
    assert (panel.rules, found.candidates) == (rules, tuple(ranked))
    # A member is one of several already: asking two for each would be asking everybody.
    assert not any(proposer.hedges for proposer in panel.proposers)
    return (
        [keys(p.candidates) for p in panel.proposers],
        keys(panel.aggregator.candidates),
        panel.quorum,
    )


def keys(candidates: Sequence[Candidate]) -> str:
    """In one line."""
    return " ".join(candidate.key for candidate in candidates)


def test_those_who_are_named_propose_and_their_stand_ins_stand_in():
    found = seats(
        [D, C, B, A],
        PanelRules(quorum=2),
        {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4},
        proposers=(("p/a", "p/d"), ("p/b",), ("p/a", "p/d")),
        aggregators=("p/b", "p/c"),
    )

    assert found == (["p/a p/d", "p/b", "p/a p/d"], "p/b p/c p/d p/a", 2)


@pytest.mark.parametrize(
    ("ranked", "expected"),
    [
        ([A, B, C], ["p/a", "p/b", "p/c"]),
        ([A, C], ["p/a", "p/c"]),
        ([C], ["p/c"]),
    ],
)
def test_a_seat_nobody_may_take_stays_empty_and_the_quorum_is_no_larger_than_the_panel(
    ranked, expected
):
    named = (("p/a",), ("p/b",), ("p/c",))
    found, _, quorum = seats(ranked, PanelRules(quorum=3), proposers=named)

    assert found == expected
    assert quorum == len(expected)


def test_a_panel_without_any_of_its_proposers_is_none():
    with pytest.raises(NoEligibleProvider, match="no proposer of the panel 'r' is left"):
        seats([D], PanelRules(), proposers=(("p/a",), ("p/b",)))


@pytest.mark.parametrize(
    ("ranked", "size", "expected"),
    [
        pytest.param([C, A, B], 3, ["p/c p/a p/b", "p/a p/c p/b", "p/b p/c p/a"], id="three"),
        pytest.param([C, A, B, D], 2, ["p/c p/a p/b p/d", "p/a p/c p/b p/d"], id="the best two"),
        pytest.param([B, A], 3, ["p/b p/a", "p/a p/b", "p/b p/a"], id="one of them again"),
        pytest.param([A], 3, ["p/a"] * 3, id="one alone"),
        pytest.param([A, B], 1, ["p/a p/b"], id="one proposer"),
        pytest.param(
            [B, A2, A], 2, ["p/b q/a p/a", "q/a p/a p/b"], id="deployments of one model are one"
        ),
        pytest.param(
            [A, B, LOCAL],
            3,
            ["p/a p/b local/local", "p/b p/a local/local", "p/a p/b local/local"],
            id="the embedded model stands in",
        ),
        pytest.param([LOCAL], 2, ["local/local"] * 2, id="the embedded model alone"),
    ],
)
def test_without_names_the_best_models_propose(ranked, size, expected):
    found, _, _ = seats(ranked, PanelRules(size=size, quorum=1))

    assert found == expected


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        pytest.param({"a": 0.5, "b": 0.5, "c": 0.9}, ["p/c", "p/c", "p/c"], id="leads by far"),
        pytest.param({"a": 0.5, "b": 0.6, "c": 0.6}, ["p/a", "p/b", "p/c"], id="two lead"),
        pytest.param({"a": 0.5, "b": 0.6, "c": 0.65}, ["p/a", "p/b", "p/c"], id="leads a little"),
        pytest.param({"a": 0.5, "b": 0.5, "c": 0.5}, ["p/a", "p/b", "p/c"], id="all the same"),
    ],
)
def test_one_model_that_leads_by_far_is_asked_several_times(accuracy, expected):
    found, _, _ = seats([A, B, C], PanelRules(size=3), accuracy)

    assert [first.split()[0] for first in found] == expected


def test_of_two_models_none_leads_by_far():
    found, _, _ = seats([A, B], PanelRules(size=2), {"a": 0.1, "b": 0.9})

    assert found == ["p/a p/b", "p/b p/a"]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((), "p/c p/a p/b local/local"),
        (("p/b",), "p/b p/c p/a local/local"),
        (("local/local",), "local/local p/c p/a p/b"),
        (("p/d",), "p/c p/a p/b local/local"),
    ],
)
def test_the_aggregator_is_who_is_named_and_then_the_most_accurate(named, expected):
    accuracy = {"a": 0.5, "b": 0.4, "c": 0.6, "local": 0.9}
    _, aggregator, _ = seats([A, B, C, LOCAL], PanelRules(), accuracy, aggregators=named)

    assert aggregator == expected


# with the catalog and the router


def router(candidates: Sequence[Candidate], *routes: Route) -> Router:
    """Over these."""
    scores = Scores(None, candidates)
    catalog = Catalog(candidates, routes)
    return Router(catalog, scores, Experience(scores.measured), lambda: 0.0)


def planned(route: Route, candidates: Sequence[Candidate], *parts: Part, **fields: Any) -> Plan:
    """A request for the route."""
    message = Message(role=Role.ROLE_USER, parts=parts or [Part(text="hi")])
    spec = CompletionSpec(model=route.id, messages=[message], **fields)
    return router(candidates, route).plan(spec, "request")


def members(plan: Plan) -> tuple[list[str], str]:
    """Proposers and aggregator, by key."""
    panel = plan.panel
    assert panel is not None
    return [keys(p.candidates) for p in panel.proposers], keys(panel.aggregator.candidates)


NAMED: Final = Route(
    "r",
    (),
    fallbacks=("d",),
    plans=frozenset({"rich"}),
    panel=PanelRules(proposers=("a", "p/b", "a"), aggregator="c"),
)


def test_names_are_ids_aliases_and_deployments_and_the_routes_fallbacks_stand_in_for_all():
    plan = planned(NAMED, [A, B, C, D])

    assert members(plan) == (["p/a p/d", "p/b p/d", "p/a p/d"], "p/c p/a p/b p/d")
    assert (plan.route, plan.plans, plan.pinned) == ("r", frozenset({"rich"}), False)


def test_a_models_own_fallbacks_stand_in_for_it():
    a = candidate("a", fallbacks=("d",))
    c = candidate("c", fallbacks=("b",))
    rules = PanelRules(proposers=("a", "b"), aggregator="c")
    plan = planned(Route("r", (), panel=rules), [a, B, c, D])

    assert members(plan) == (["p/a p/d", "p/b"], "p/c p/b p/a p/d")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"constraints": RoutingConstraints(denied_providers=["q"])}, ["p/a"]),
        ({"constraints": RoutingConstraints(allowed_models=["q/b"])}, ["q/b"]),
        ({"tool_options": ToolOptions(tools=[Tool(name="t")])}, ["q/b"]),
    ],
)
def test_who_may_not_answer_this_request_does_not_propose(fields, expected):
    a = candidate("a", capabilities=frozenset(Capability) - {Capability.TOOLS})
    b = candidate("b", "q")
    route = Route("r", (), panel=PanelRules(proposers=("a", "b"), aggregator="b"))

    assert members(planned(route, [a, b], **fields))[0] == expected


def test_who_can_not_see_is_left_out_where_there_is_an_image():
    blind = candidate("b", capabilities=BLIND)
    plan = planned(NAMED, [A, blind, C, D], PICTURE)

    assert members(plan) == (["p/a p/d", "p/d", "p/a p/d"], "p/c p/a p/d")
    assert [(e.candidate.key, e.reason) for e in plan.excluded] == [("p/b", "has no vision")]
    with pytest.raises(CapabilityUnsupported) as caught:
        planned(Route("r", (), panel=PanelRules(proposers=("b",))), [blind], PICTURE)
    assert caught.value.message == "spec.messages[0].parts[0].image: p/b has no vision"


@pytest.mark.parametrize("route", DEFAULT_PANELS, ids=lambda route: route.id)
@pytest.mark.parametrize(
    "candidates",
    [[LOCAL], [A], [A, LOCAL], [A, B], [A, A2, B, C, D, LOCAL]],
    ids=["embedded", "one", "one and embedded", "two", "many"],
)
def test_the_default_panels_are_there_over_whoever_is(route, candidates):
    plan = planned(route, candidates)

    panel, rules = plan.panel, route.panel
    assert panel is not None
    assert rules is not None
    size = {"waymark-fast": 1, "waymark-moa": 3, "waymark-max": 6}[route.id]
    assert (len(panel.proposers), panel.quorum) == (size, rules.quorum)
    assert panel.mixes is rules.mixes is (size > 1)
    hosted = [c for c in candidates if not c.embedded] or candidates
    firsts = [proposer.candidates[0] for proposer in panel.proposers]
    assert all(first in hosted for first in firsts)
    # As many different models as there are.
    assert len({first.id for first in firsts}) == min(size, len({c.id for c in hosted}))
    assert panel.aggregator.candidates[0] in hosted
    for seat in (*panel.proposers, panel.aggregator):
        assert sorted(keys(seat.candidates).split()) == sorted(c.key for c in candidates)


def test_the_default_panels_move_up_one_after_the_other():
    wider = {route.id: route.panel.escalate_to for route in DEFAULT_PANELS if route.panel}

    assert wider == {
        "waymark-fast": "waymark-moa",
        "waymark-moa": "waymark-max",
        "waymark-max": "",
    }


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        (OptimizeFor.OPTIMIZE_FOR_UNSPECIFIED, "cheap"),
        (OptimizeFor.OPTIMIZE_FOR_COST, "cheap"),
        (OptimizeFor.OPTIMIZE_FOR_ACCURACY, "good"),
    ],
)
def test_the_route_says_what_matters_where_the_caller_does_not(asked, first):
    cheap = candidate("cheap", scores={"accuracy": 0.1, "latency": 0.5, "cost": 0.9})
    good = candidate("good", scores={"accuracy": 0.9, "latency": 0.5, "cost": 0.1})
    rules = PanelRules(size=1, quorum=1, optimize_for=OptimizeFor.OPTIMIZE_FOR_COST)
    message = Message(role=Role.ROLE_USER, parts=[Part(text="hi")])
    spec = CompletionSpec(model="r", messages=[message])
    spec.intent.optimize_for = asked
    plan = router([cheap, good], Route("r", (), panel=rules)).plan(spec, "request")

    assert members(plan)[0][0].split()[0] == f"p/{first}"


def test_a_wider_route_is_planned_for_a_request_that_names_another():
    wide = Route("wide", (), panel=PanelRules(proposers=("a", "b"), aggregator="a"))
    narrow = Route("r", (), panel=PanelRules(proposers=("c",), escalate_to="wide"))
    message = Message(role=Role.ROLE_USER, parts=[Part(text="hi")])
    spec = CompletionSpec(model="r", messages=[message])
    plan = router([A, B, C], wide, narrow).plan(spec, "request", route="wide")

    assert (plan.route, plan.requested_model) == ("wide", "r")
    assert members(plan) == (["p/a", "p/b"], "p/a p/b")
