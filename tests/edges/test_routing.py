"""The best is asked first: by scores, by what was learned, and explained before and after."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import grpc
import httpx
import msgspec
import pytest

from tests.edges.errors import reason_of
from tests.edges.observed import LIMIT_S, spec, stream
from tests.edges.test_command import run
from tests.support.service import model, provider, service
from tests.support.upstream import Exchange, Hang, Pause, Step, answer, hello, upstream, whole
from tests.unit.routing.test_scoring_run import run as scoring_run
from trunkline import AsyncClient, TrunklineError
from trunkline.v1.completion_service_pb2 import PreviewRouteRequest, PreviewRouteResponse
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec, OptimizeFor, RoutingIntent
from trunkline_server.app import Service, build
from trunkline_server.config import Settings
from trunkline_server.core.candidate import Price
from trunkline_server.providers.prices import list_price
from trunkline_server.routing.scoring_run import Cell, encoded, sealed

FAILING = whole({"error": {"message": "no"}}, 500)
REQUESTS = 30
NOT_CURIOUS = [
    ("x-request-id", "request-0001")
]  # Its hash does not make it one of the few that explore.
COST = OptimizeFor.OPTIMIZE_FOR_COST


def after(pause_s: float) -> Callable[[Exchange], list[Step]]:
    """The usual answer, but late."""
    return lambda _: [Pause(pause_s), *answer("Hello")]


def two(first_url: str, second_url: str, *, learns: bool = True) -> dict[str, Any]:
    """One model at two providers, equal as far as is known."""
    return {
        "providers": [provider("a", first_url), provider("b", second_url)],
        "models": [model("m", "a"), model("m", "b")],
        "routing": {"learn": learns},
    }


async def preview(running: Service, **fields: Any) -> PreviewRouteResponse:
    """Over gRPC, of a spec or of a request that was."""
    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        return await CompletionServiceStub(channel).PreviewRoute(
            PreviewRouteRequest(**fields), timeout=LIMIT_S, metadata=NOT_CURIOUS
        )


def order(found: PreviewRouteResponse) -> list[str]:
    """Who may be asked."""
    return [c.provider for c in found.candidates if c.eligible]


async def ask(running: Service, count: int = 1, model: str = "m") -> Iterator[str]:
    """So many times; who answered, in turn."""
    async with AsyncClient(running.grpc_address) as client:
        routes = [(await client.complete("hi", model=model)).route for _ in range(count)]
    return iter([route.provider for route in routes])


async def ask_streams(running: Service, count: int) -> list[str]:
    """The same, as streams."""
    found = [await stream(running, spec("m"), metadata=tuple(NOT_CURIOUS)) for _ in range(count)]
    return [each.events[-1].completed.completion.route.provider for each in found]


async def curious_ids(running: Service, count: int) -> list[str]:
    """Ids of requests that would go to whoever is not thought to be the best."""
    ids = [f"request-{number:04}" for number in range(1_000)]
    found = [await preview_with_id(running, CompletionSpec(model="m"), i) for i in ids]
    return [i for i, each in zip(ids, found, strict=True) if each.explored][:count]


async def find_out(running: Service) -> None:
    """Ask both, the second one out of curiosity."""
    for request_id in await curious_ids(running, 3):
        await stream(running, spec("m"), metadata=(("x-request-id", request_id),))


async def test_the_faster_one_is_found_out_and_asked():
    async with (
        upstream(after(0.2)) as slow,
        upstream(hello) as fast,
        service(**two(slow.url, fast.url)) as running,
    ):
        before = await preview(running, spec=spec("m"))
        first = await ask_streams(running, 3)
        await find_out(running)
        answered = await ask_streams(running, REQUESTS)
        then = await preview(running, spec=spec("m"))

    assert order(before) == ["a", "b"]
    assert first == ["a"] * 3
    assert answered == ["b"] * REQUESTS
    terms = {c.provider: c.latency for c in then.candidates}
    assert terms["b"] > terms["a"]
    assert sorted(order(then)) == ["a", "b"]


async def test_without_learning_the_order_stays_as_it_was_configured():
    async with (
        upstream(after(0.05)) as slow,
        upstream(hello) as fast,
        service(**two(slow.url, fast.url, learns=False)) as running,
    ):
        assert set(await ask_streams(running, REQUESTS)) == {"a"}
        assert set(await ask(running, REQUESTS)) == {"a"}


async def test_who_fails_is_not_asked_for_long_and_nobody_notices():
    async with (
        upstream(lambda _: FAILING) as bad,
        upstream(hello) as good,
        service(**two(bad.url, good.url)) as running,
    ):
        answered = list(await ask(running, REQUESTS))
        asked = len(bad.exchanges)
        found = await preview(running, spec=spec("m"))

    assert answered == ["b"] * REQUESTS
    assert asked <= 8
    assert found.candidates[0].provider == "b"
    assert found.candidates[0].score > found.candidates[1].score


async def test_a_scoring_run_decides_and_its_id_is_told_everywhere(tmp_path):
    made = sealed(scoring_run(Cell("a/m", 0.2, "de"), Cell("a/m", 0.9), Cell("b/m", 0.6)))
    (tmp_path / "scores.json").write_bytes(encoded(made))
    async with (
        upstream(hello) as there,
        service(
            **two(there.url, there.url, learns=False),
            scoring={"file": str(tmp_path / "scores.json")},
        ) as running,
    ):
        english = await preview(running, spec=CompletionSpec(model="m"))
        german = await preview(
            running, spec=CompletionSpec(model="m", intent=RoutingIntent(language="de-AT"))
        )
        found = await stream(running, spec("m"))
        async with httpx.AsyncClient(timeout=LIMIT_S) as http:
            body = {
                "messages": [{"role": "user", "content": "hi"}],
                "intent": {"language": "en"},
            }
            spoken = await http.post(f"http://{running.http_address}/v1/complete", json=body)
            told = await http.get(
                f"http://{running.http_address}/v1/routing/preview", params={"language": "de"}
            )

    assert (order(english), order(german)) == (["a", "b"], ["b", "a"])
    assert (german.language, german.region, german.scores_run_id) == ("de", "global", made.id)
    assert found.events[-1].completed.completion.route.scores_run_id == made.id
    assert spoken.headers["x-speko-scores-run-id"] == made.id
    assert f'"scoresRunId":"{made.id}"' in spoken.text
    assert told.json()["scoresRunId"] == made.id
    assert told.json()["candidates"][0]["provider"] == "b"


async def test_a_decision_is_told_again_as_it_was_made(tmp_path):
    async with (
        upstream(after(0.1)) as slow,
        upstream(hello) as fast,
        service(**two(slow.url, fast.url)) as running,
    ):
        first = await stream(running, spec("m"), metadata=(("x-request-id", "first-decision"),))
        await find_out(running)
        now = await preview(running, spec=spec("m"))
        then = await preview(running, request_id="first-decision")
        shown = await run(
            *("route", "--target", running.grpc_address, "--request-id", "first-decision"),
            folder=tmp_path,
        )
        async with httpx.AsyncClient(timeout=LIMIT_S) as http:
            told = await http.get(
                f"http://{running.http_address}/v1/routing/preview?requestId=first-decision"
            )

    assert first.events[-1].completed.completion.route.provider == "a"
    assert order(now)[0] == "b"
    assert order(then) == ["a", "b"]
    assert then.candidates[0].HasField("score")
    assert [line.split()[1] for line in shown.out.splitlines()] == ["a/m", "b/m"]
    assert [c["provider"] for c in told.json()["candidates"]] == ["a", "b"]
    scores = [c["score"] for c in told.json()["candidates"]]
    assert scores == [c.score for c in then.candidates]


async def test_a_decision_of_another_caller_is_not_there():
    keys = [{"id": name, "key_env": name.upper()} for name in ("one", "two")]
    async with (
        upstream(hello) as there,
        service(
            environment={"ONE": "sk-one", "TWO": "sk-two"},
            keys=keys,
            **two(there.url, there.url),
        ) as running,
    ):
        async with AsyncClient(running.grpc_address, api_key="sk-one") as one:
            metadata = {"x-request-id": "a-request-of-one"}
            await one.complete("hi", model="m", metadata=metadata)
            own = await one.preview_route(request_id="a-request-of-one")
        async with grpc.aio.insecure_channel(running.grpc_address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await CompletionServiceStub(channel).PreviewRoute(
                    PreviewRouteRequest(request_id="a-request-of-one"),
                    metadata=[("authorization", "Bearer sk-two")],
                    timeout=LIMIT_S,
                )

    assert order(own) == ["a", "b"]
    assert reason_of(caught.value) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"request_id": "x" * 65}, "request_id: at most 64 characters"),
        ({"request_id": "some-request", "spec": CompletionSpec()}, "spec: either a spec or"),
    ],
    ids=["long", "both"],
)
async def test_what_can_not_be_looked_up_is_refused(fields, text):
    async with (
        upstream(hello) as there,
        service(**two(there.url, there.url)) as running,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await preview(running, **fields)

    assert text in (caught.value.details() or "")


async def test_whoever_is_explored_says_so_and_answers_like_all_others():
    async with (
        upstream(hello) as one,
        upstream(hello) as other,
        service(**two(one.url, other.url)) as running,
    ):
        found = await asyncio.gather(
            *(
                preview_with_id(running, CompletionSpec(model="m"), f"request-{number:04}")
                for number in range(400)
            )
        )

    explored = [each for each in found if each.explored]
    assert 1 <= len(explored) <= 24
    assert {tuple(order(each)) for each in explored} == {("b", "a")}
    assert {tuple(order(each)) for each in found if not each.explored} == {("a", "b")}


async def preview_with_id(
    running: Service, asked: CompletionSpec, request_id: str
) -> PreviewRouteResponse:
    """Of a request of that id. In process, as there are many."""
    channel: Any = running.channel
    stub = CompletionServiceStub(channel)
    found: PreviewRouteResponse = await stub.PreviewRoute(
        PreviewRouteRequest(spec=asked), metadata=[("x-request-id", request_id)]
    )
    return found


async def test_the_command_explains_without_a_prompt(tmp_path):
    models = [
        model("good", "p", scores={"accuracy": 1.0}, regions=["eu"]),
        model("poor", "p", scores={"accuracy": 0.0}, regions=["us-east-1"]),
    ]
    async with service(providers=[provider("p", "http://127.0.0.1:1")], models=models) as running:
        found = await run(
            *("route", "--target", running.grpc_address, "--region", "us", "--language", "de"),
            folder=tmp_path,
        )

    assert (found.code, found.err) == (0, "")
    assert [line.split()[:5] for line in found.out.splitlines()] == [
        ["1.", "p/poor"],
        ["-.", "p/good", "not", "in", "the"],
    ]


async def test_the_language_is_recognised_where_the_scores_depend_on_it(tmp_path):
    made = sealed(scoring_run(Cell("a/m", 0.2, "de"), Cell("a/m", 0.9), Cell("b/m", 0.6)))
    (tmp_path / "scores.json").write_bytes(encoded(made))
    asked = {
        "Welche Flüsse fließen durch die Hauptstadt dieses Landes?": ("de", "b"),
        "Which rivers flow through the capital of this country?": ("", "a"),
    }
    async with (
        upstream(hello) as there,
        service(
            **two(there.url, there.url, learns=False),
            scoring={"file": str(tmp_path / "scores.json")},
        ) as running,
        AsyncClient(running.grpc_address) as client,
    ):
        found = {text: await client.preview_route(text, model="m") for text in asked}
        answered = {text: (await client.complete(text, model="m")).route for text in asked}

    for text, (language, first) in asked.items():
        assert (found[text].language, order(found[text])[0]) == (language, first)
        assert answered[text].provider == first


async def test_list_prices_count_where_the_vendor_is_asked_and_nowhere_else():
    models = [{"id": "gpt-5.4-mini", "provider": "openai"}]
    settings = {"local": {"enabled": False}, "models": models}
    environment = {"OPENAI_API_KEY": "sk"}

    def price_at(**more: str) -> Price:
        tree = {**settings, "providers": [{"id": "openai", **more}]}
        return build(msgspec.convert(tree, Settings), environment).candidates[0].price

    assert price_at() == list_price("openai", "gpt-5.4-mini", datetime.now(UTC).date())
    assert price_at().input_nanos
    elsewhere = price_at(base_url="https://proxy.example/v1", api_key_env="OPENAI_API_KEY")
    assert elsewhere == Price()


@pytest.mark.parametrize("named", ["gpt-5.4", "gpt-4o"])
async def test_the_intent_tunes_the_effort_and_nobody_is_told_of_what_has_none(named):
    intent = {"language": "en", "optimizeFor": "accuracy"}
    body = {"messages": [{"role": "user", "content": "hi"}], "intent": intent}
    async with (
        upstream(hello) as there,
        service(providers=[provider("a", there.url)], models=[model(named, "a")]) as running,
        httpx.AsyncClient(timeout=LIMIT_S) as http,
    ):
        wanted = RoutingIntent(optimize_for=OptimizeFor.OPTIMIZE_FOR_ACCURACY)
        async with AsyncClient(running.grpc_address) as client:
            completion = await client.complete("hi", model=named, intent=wanted)
        await http.post(f"http://{running.http_address}/v1/complete", json=body)

    efforts = [exchange.json.get("reasoning_effort") for exchange in there.exchanges]
    assert efforts == (["high", "high"] if named == "gpt-5.4" else [None, None])
    assert not completion.warnings


async def test_who_is_always_outrun_or_left_waiting_is_not_asked_first_for_ever():
    async with (
        upstream(lambda _: [Hang()]) as silent,
        upstream(hello) as other,
        service(**two(silent.url, other.url)) as running,
    ):
        async with AsyncClient(running.grpc_address) as client:
            while not other.exchanges and len(silent.exchanges) < 6:
                # Far less than the time after which the gateway asks somebody else.
                with suppress(TrunklineError):
                    await client.complete(
                        "hi", model="m", timeout_s=1.3, metadata=dict(NOT_CURIOUS)
                    )
        found = await preview(running, spec=spec("m"))

    assert order(found) == ["b", "a"]
    assert len(silent.exchanges) <= 5
