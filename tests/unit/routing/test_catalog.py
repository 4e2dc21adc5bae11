"""Names to candidates: ids, aliases, provider/model, routes, auto."""

import pytest

from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import ModelNotFound
from trunkline_server.routing.catalog import Catalog, Route, Selection, Strategy

FAST = Candidate("a", "fast", "vendor-fast-1", aliases=("quick", "swift"))
SLOW_A = Candidate("a", "slow", "slow", fallbacks=("fast",))
SLOW_B = Candidate("b", "slow", "slow-of-b", aliases=("steady",), fallbacks=("local", "fast"))
LOCAL = Candidate("local", "tiny", "tiny", aliases=("local",), embedded=True)
ORDERED = Route("in-order", ("fast", "slow"), Strategy.ORDERED, ("local",))
RANKED = Route("best", ("slow", "quick"), fallbacks=("local", "fast"))
WEIGHTED = Route("canary", ("fast", "slow"), Strategy.WEIGHTED, weights=(9.0, 1.0))
CATALOG = Catalog([LOCAL, FAST, SLOW_A, SLOW_B], [ORDERED, RANKED, WEIGHTED])


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("fast", ((FAST,),)),
        ("quick", ((FAST,),)),
        ("swift", ((FAST,),)),
        ("a/fast", ((FAST,),)),
        ("a/vendor-fast-1", ((FAST,),)),
        ("slow", ((SLOW_A, SLOW_B), (FAST,), (LOCAL,))),
        ("steady", ((SLOW_B,), (LOCAL,), (FAST,))),
        ("a/slow", ((SLOW_A,), (FAST,))),
        ("b/slow-of-b", ((SLOW_B,), (LOCAL,), (FAST,))),
        ("local", ((LOCAL,),)),
        ("local/tiny", ((LOCAL,),)),
    ],
)
def test_a_models_name_stands_for_its_deployments_and_then_their_fallbacks(name, groups):
    assert CATALOG.select(name) == Selection("", groups, pinned=True)


@pytest.mark.parametrize("name", ["", "auto"])
def test_auto_is_everyone_with_the_embedded_model_last(name):
    found = CATALOG.select(name)

    assert found == Selection("", ((FAST, SLOW_A, SLOW_B), (LOCAL,)), pinned=False)


def test_an_ordered_route_keeps_its_order_and_then_that_of_its_fallbacks():
    found = CATALOG.select("in-order")

    groups = ((FAST,), (SLOW_A, SLOW_B), (LOCAL,))
    assert found == Selection("in-order", groups, pinned=False)


def test_a_ranked_route_leaves_the_order_of_its_candidates_open_and_names_each_once():
    found = CATALOG.select("best")

    groups = ((SLOW_A, SLOW_B, FAST), (LOCAL,))
    assert found == Selection("best", groups, pinned=False)


def test_deployments_of_one_model_share_its_weight():
    found = CATALOG.select("canary")

    weights = {"a/fast": 9.0, "a/slow": 0.5, "b/slow": 0.5}
    groups = ((FAST, SLOW_A, SLOW_B),)
    assert found == Selection("canary", groups, False, Strategy.WEIGHTED, weights)


def test_provider_and_id_win_over_provider_and_the_vendors_name():
    named = Candidate("p", "new", "big")
    other = Candidate("p", "old", "new")
    catalog = Catalog([other, named], [])

    assert catalog.deployments("p/new") == (named,)
    assert catalog.deployments("p/big") == (named,)


def test_two_ids_of_one_deployment_are_both_found_by_the_vendors_name():
    one = Candidate("p", "one", "m")
    two = Candidate("p", "two", "m")

    assert Catalog([one, two], []).deployments("p/m") == (one, two)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("fsat", "fast"),
        ("a/fats", "a/fast"),
        ("in-ordr", "in-order"),
        ("Auto", "auto"),
        ("stedy", "steady"),
        ("something-else-altogether", ""),
        ("x" * 100_000, ""),
    ],
    ids=["an id", "with its provider", "a route", "auto", "an alias", "nothing", "too long"],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ModelNotFound) as caught:
        CATALOG.select(name)

    assert caught.value.metadata == {"nearest": nearest}
    assert len(caught.value.message) < 256
    assert (f"did you mean {nearest!r}" in caught.value.message) is bool(nearest)


def test_what_is_unknown_is_not_remembered():
    for number in range(100):
        with pytest.raises(ModelNotFound):
            CATALOG.select(f"unknown-{number}")

    assert CATALOG.deployments("unknown-1") == ()
