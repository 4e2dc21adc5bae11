"""Who answers: routes, pins, fallbacks, and what PreviewRoute and ListModels say of it."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.clients.gateway import missing
from tests.edges.errors import fields_of, info_of, reason_of
from tests.edges.observed import LIMIT_S, spec, stream
from tests.support.service import model, provider, service, service_over
from tests.support.upstream import Exchange, Step, answer, hello, upstream, whole
from trunkline.v1.catalog_service_pb2 import (
    Availability,
    GetModelRequest,
    ListModelsRequest,
    ModelKind,
)
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_pb2 import RouteReason
from trunkline.v1.completion_service_pb2 import PreviewRouteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    RoutingConstraints,
    SamplingOptions,
    UnsupportedPolicy,
)
from trunkline.v1.message_pb2 import Media, Message, Part, Role
from trunkline_server.app import Service
from trunkline_server.local_model.process import default_model_path, has_engine

REFUSED = whole({"error": {"message": "no", "code": "invalid_api_key"}}, 401)
FAILING = whole({"error": {"message": "no"}}, 500)
REJECT = UnsupportedPolicy.UNSUPPORTED_POLICY_REJECT


def by_name(exchange: Exchange) -> list[Step]:
    """Says which model it was asked for."""
    return answer(exchange.json["model"])


@dataclass
class Dialects:
    """A service with the route r over o/m, which has no top_k, and v/n, which has."""

    service: Service
    exchanges: list[Exchange]


@asynccontextmanager
async def two_dialects() -> AsyncIterator[Dialects]:
    """One upstream for both."""
    async with (
        upstream(hello) as scripted,
        service(
            providers=[provider("o", scripted.url), provider("v", scripted.url, "vllm")],
            models=[model("m", "o"), model("n", "v")],
            routes=[{"id": "r", "candidates": ["m", "n"], "strategy": "ordered"}],
        ) as running,
    ):
        yield Dialects(running, scripted.exchanges)


async def preview(service: Service, asked: CompletionSpec) -> list[tuple[str, str]]:
    """Candidates in order, with the reason of those that are excluded."""
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        response = await CompletionServiceStub(channel).PreviewRoute(
            PreviewRouteRequest(spec=asked), timeout=LIMIT_S
        )
    for candidate in response.candidates:
        assert candidate.eligible is not bool(candidate.exclusion_reason)
    return [(f"{c.provider}/{c.model}", c.exclusion_reason) for c in response.candidates]


async def test_an_ordered_route_asks_in_order_and_then_its_fallbacks():
    async with (
        upstream(FAILING) as a,
        upstream(FAILING) as b,
        upstream(by_name) as c,
        service_over(
            a.url,
            b.url,
            c.url,
            routes=[
                {
                    "id": "r",
                    "candidates": ["m-b", "m-a"],
                    "strategy": "ordered",
                    "fallbacks": ["m-c"],
                }
            ],
        ) as running,
    ):
        found = await stream(running, spec("r"))

    completion = found.events[-1].completed.completion
    assert [attempt.provider for attempt in completion.attempts] == ["b", "a", "c"]
    assert (completion.route.provider, completion.route.route) == ("c", "r")
    assert completion.route.reason == RouteReason.ROUTE_REASON_FAILOVER
    assert found.text == "m-c"


async def test_a_ranked_route_asks_the_best_first():
    models = [
        model("poor", "a", scores={"accuracy": 0.1}),
        model("good", "a", scores={"accuracy": 0.9}),
    ]
    async with (
        upstream(by_name) as a,
        service(
            providers=[provider("a", a.url)],
            models=models,
            routes=[{"id": "r", "candidates": ["poor", "good"]}],
        ) as running,
    ):
        found = await stream(running, spec("r"))
        previewed = await preview(running, spec("r"))

    assert found.text == "good"
    assert found.events[-1].completed.completion.route.reason == RouteReason.ROUTE_REASON_SCORED
    assert previewed == [("a/good", ""), ("a/poor", "")]


async def test_a_weighted_route_shares_its_requests_out_and_repeats_itself_by_id():
    route = {
        "id": "r",
        "candidates": ["m-a", "m-b"],
        "strategy": "weighted",
        "weights": [3.0, 1.0],
    }
    async with (
        upstream(by_name) as a,
        upstream(by_name) as b,
        service_over(a.url, b.url, routes=[route]) as running,
    ):
        drawn = Counter[str]()
        for number in range(60):
            id_ = (("x-request-id", f"request-{number}"),)
            drawn[(await stream(running, spec("r"), metadata=id_)).text] += 1
        again = [
            (await stream(running, spec("r"), metadata=(("x-request-id", "request-7"),))).text
            for _ in range(3)
        ]

    assert 5 <= drawn["m-b"] <= 26
    assert drawn.total() == 60
    assert len(set(again)) == 1


@pytest.mark.parametrize("name", ["m", "a/m", "alias"])
async def test_a_pinned_model_is_replaced_by_its_own_fallbacks_alone(name):
    models = [
        model("m", "a", aliases=["alias"], fallbacks=["n"]),
        model("n", "b"),
        model("other", "c"),
    ]
    async with (
        upstream(FAILING) as a,
        upstream(FAILING) as b,
        upstream(hello) as c,
        service(
            providers=[provider("a", a.url), provider("b", b.url), provider("c", c.url)],
            models=models,
        ) as running,
    ):
        found = await stream(running, spec(name))

    assert reason_of(found.error) == (grpc.StatusCode.UNAVAILABLE, "ALL_PROVIDERS_FAILED")
    assert b.exchanges
    assert c.exchanges == []


async def test_the_embedded_model_stands_in_for_nobody_who_was_named():
    if not has_engine() or default_model_path() is None:
        missing("the engine or the weights are not installed: make setup")
    async with (
        upstream(FAILING) as a,
        service(
            providers=[provider("a", a.url)],
            models=[model("m", "a")],
            routes=[{"id": "r", "candidates": ["m"]}],
            local={"enabled": True},
        ) as running,
    ):
        auto = await preview(running, spec("auto"))
        named = [await preview(running, spec(name)) for name in ("m", "a/m", "r")]
        found = await stream(running, spec("m"))

    assert auto == [("a/m", ""), ("local/smollm2-135m", "")]
    assert named == [[("a/m", "")]] * 3
    assert reason_of(found.error) == (grpc.StatusCode.UNAVAILABLE, "ALL_PROVIDERS_FAILED")


async def test_constraints_can_turn_failover_off():
    only = RoutingConstraints(max_attempts=1)
    async with (
        upstream(FAILING) as a,
        upstream(hello) as b,
        service_over(a.url, b.url) as running,
    ):
        found = await stream(running, spec(constraints=only))

    assert found.code is grpc.StatusCode.UNAVAILABLE
    assert b.exchanges == []


async def test_an_unknown_model_is_answered_with_the_nearest_name():
    async with service_over("http://127.0.0.1:9") as running:
        found = await stream(running, spec("m-aa"))

    assert reason_of(found.error) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert info_of(found.error).metadata["nearest"] == "m-a"


async def test_a_preview_names_who_is_excluded_and_why_and_asks_nobody():
    models = [
        model("open", "a"),
        model("blind", "b", capabilities=["tools"]),
        model("denied", "c"),
        model("good", "d"),
    ]
    route = {
        "id": "r",
        "candidates": ["open", "blind", "denied", "good"],
        "strategy": "ordered",
    }
    picture = Part(image=Media(data=b"x", mime_type="image/png"))
    asked = CompletionSpec(
        model="r",
        messages=[Message(role=Role.ROLE_USER, parts=[picture])],
        constraints=RoutingConstraints(denied_providers=["c"]),
    )
    async with (
        upstream(REFUSED) as a,
        upstream(hello) as rest,
        service(
            providers=[
                provider("a", a.url),
                *(provider(name, rest.url) for name in "bcd"),
            ],
            models=models,
            routes=[route],
        ) as running,
    ):
        await stream(running, spec("open"))
        asked_before = len(rest.exchanges) + len(a.exchanges)
        found = await preview(running, asked)

    assert found == [
        ("d/good", ""),
        ("b/blind", "has no vision"),
        ("c/denied", "a denied provider"),
        ("a/open", "the breaker is open"),
    ]
    assert len(rest.exchanges) + len(a.exchanges) == asked_before


@pytest.mark.parametrize("policy", [0, UnsupportedPolicy.UNSUPPORTED_POLICY_WARN, REJECT])
async def test_an_option_that_would_be_dropped_excludes_only_when_that_is_refused(policy):
    asked = spec("r", sampling=SamplingOptions(top_k=5), unsupported_policy=policy)
    async with two_dialects() as running:
        previewed = await preview(running.service, asked)
        found = await stream(running.service, asked)

    completion = found.events[-1].completed.completion
    warnings = [(w.code, w.field, w.provider) for w in completion.warnings]
    if policy == REJECT:
        assert previewed == [("v/n", ""), ("o/m", "can't honour spec.sampling.top_k")]
        assert (completion.route.provider, warnings) == ("v", [])
        assert [attempt.provider for attempt in completion.attempts] == ["v"]
    else:
        assert previewed == [("o/m", ""), ("v/n", "")]
        assert completion.route.provider == "o"
        assert warnings == [("PARAMETER_DROPPED", "spec.sampling.top_k", "o")]
    assert [e.json.get("top_k") for e in running.exchanges] == [5 if policy == REJECT else None]


async def test_when_nobody_can_honour_an_option_that_must_be_the_field_is_named():
    asked = spec("m", sampling=SamplingOptions(top_k=5), unsupported_policy=REJECT)
    async with two_dialects() as running:
        found = await stream(running.service, asked)

    assert reason_of(found.error) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "CAPABILITY_UNSUPPORTED",
    )
    assert fields_of(found.error) == ["spec.sampling.top_k"]
    assert running.exchanges == []


async def test_models_are_listed_page_by_page_routes_last():
    models = [model(f"m-{number:02}", "a") for number in range(25)]
    routes = [{"id": f"r-{number}", "candidates": ["m-00"]} for number in range(3)]
    async with service(
        providers=[provider("a", "http://127.0.0.1:9")], models=models, routes=routes
    ) as running:
        pages, token = [], ""
        while True:
            page = await listed(running, page_size=10, page_token=token)
            pages.append([m.id for m in page.models])
            token = page.next_page_token
            if not token:
                break
        everything = await listed(running)
        beyond = await listed(running, page_token="1000")

    names = [f"m-{number:02}" for number in range(25)] + ["r-0", "r-1", "r-2"]
    names += ["waymark-fast", "waymark-moa", "waymark-max"]
    names += ["theo-1-flash", "theo-1-reason", "theo-1-code", "theo-1-create"]
    assert pages == [names[:10], names[10:20], names[20:30], names[30:]]
    assert [m.id for m in everything.models] == names
    assert [m.kind for m in everything.models] == (
        [ModelKind.MODEL_KIND_MODEL] * 25
        + [ModelKind.MODEL_KIND_ROUTE] * 3
        + [ModelKind.MODEL_KIND_PANEL] * 3
        + [ModelKind.MODEL_KIND_MODE] * 4
    )
    assert (list(beyond.models), beyond.next_page_token) == ([], "")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "abc"}, "page_token"),
        ({"page_token": "-1"}, "page_token"),
        ({"page_token": "٣"}, "page_token"),
        ({"page_token": "9" * 400}, "page_token"),
    ],
    ids=range(5),
)
async def test_a_bad_page_is_refused_by_field(request_, field):
    async with service_over("http://127.0.0.1:9") as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(running, **request_)

    assert reason_of(caught.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert fields_of(caught.value) == [field]


@pytest.mark.parametrize("name", ["m", "alias", "a/m", "a/vendor-m"])
async def test_a_model_is_found_by_each_of_its_names(name):
    described = model(
        "m",
        "a",
        model="vendor-m",
        aliases=["alias"],
        capabilities=["tools", "vision"],
        label="M",
        description="A model.",
        regions=["eu"],
        modes=["fast"],
        context_window_tokens=1000,
        max_output_tokens=100,
        input_price=1.25,
        output_price=10.0,
        cached_input_price=0.125,
    )
    async with (
        service(providers=[provider("a", "http://127.0.0.1:9")], models=[described]) as running,
        grpc.aio.insecure_channel(running.grpc_address) as channel,
    ):
        found = await CatalogServiceStub(channel).GetModel(
            GetModelRequest(model_id=name), timeout=LIMIT_S
        )

    known = found.model
    assert (known.id, known.provider, known.label, known.description) == ("m", "a", "M", "A model.")
    assert (list(known.aliases), list(known.modes), list(known.regions)) == (
        ["alias"],
        ["fast"],
        ["eu"],
    )
    assert [field.name for field, _ in known.capabilities.ListFields()] == ["tools", "vision"]
    assert (known.context_window_tokens, known.max_output_tokens) == (1000, 100)
    assert (
        known.input_price_nanos_per_million,
        known.output_price_nanos_per_million,
        known.cached_input_price_nanos_per_million,
    ) == (1_250_000_000, 10_000_000_000, 125_000_000)
    assert known.availability == Availability.AVAILABILITY_AVAILABLE


async def test_availability_is_that_of_all_deployments():
    models = [model("m", "a"), model("m", "b")]
    async with (
        upstream(REFUSED) as a,
        upstream(REFUSED) as b,
        service(providers=[provider("a", a.url), provider("b", b.url)], models=models) as running,
    ):
        found = []
        for name in ("none", "a/m", "b/m"):
            if name != "none":
                await stream(running, spec(name))
            found.append((await listed(running)).models[0].availability)

    assert found == [
        Availability.AVAILABILITY_AVAILABLE,
        Availability.AVAILABILITY_DEGRADED,
        Availability.AVAILABILITY_UNAVAILABLE,
    ]


async def listed(service: Service, **request: Any) -> Any:
    """A page of models."""
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        return await CatalogServiceStub(channel).ListModels(
            ListModelsRequest(**request), timeout=LIMIT_S
        )
