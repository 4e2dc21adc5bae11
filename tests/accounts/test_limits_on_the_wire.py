"""What callers are told of their limits, on every surface and whatever becomes of them; and that it is true."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2

from tests.edges.errors import reason_of, status_of
from tests.edges.http11 import serving
from tests.edges.observed import LIMIT_S, spec
from tests.support.accounts import Desk, desk, new_sqlite
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Step,
    answer,
    delta,
    event,
    finish,
    head,
    hello,
    upstream,
    usage,
    whole,
)
from trunkline.v1.account_service_pb2 import GetBalanceRequest
from trunkline.v1.admin_service_pb2 import CreateKeyRequest, ListKeysRequest
from trunkline.v1.catalog_service_pb2 import GetModelRequest, ListModelsRequest
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    PreviewRouteRequest,
)
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline_server.accounts import access
from trunkline_server.core.validation import MAX_REQUEST_BYTES
from trunkline_server.edges.rest.app import Dialect, RestApp
from trunkline_server.edges.rest.http import Limits
from trunkline_server.edges.rest.openai import OpenAIShim
from trunkline_server.edges.rest.speko import SpekoShim

TOLD: Final = (
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "ratelimit-policy",
    "ratelimit",
)
CHAT: Final = "/v1/chat/completions"
COMPLETE: Final = "/v1/complete"
HEARTBEAT_S: Final = 0.2
EARLY_S: Final = 0.15  # So much before its time a request that was told to wait is still refused.
SPARE_S: Final = 0.002
PLANS: Final = [
    {"id": "prepaid", "prepaid": True},
    {"id": "roomy", "requests_per_second": 500, "burst": 700},
    {"id": "second", "requests_per_second": 1, "burst": 2},
    {"id": "spent", "requests_per_second": 0.02, "burst": 2},
    {"id": "words", "requests_per_second": 500, "tokens_per_minute": 60_000},
    {"id": "one", "requests_per_second": 500, "concurrency": 1},
    {"id": "narrow", "requests_per_second": 500, "routes": ["other"]},
    {"id": "modest", "requests_per_second": 500, "modes": ["fast"]},
    {"id": "short", "requests_per_second": 500, "max_deadline_s": 1},
    {"id": "anonymous", "requests_per_second": 400, "burst": 400},
]
Metadata = tuple[tuple[str, str], ...]
QUIET: Final[Sequence[Step]] = [head(), Hang()]
WRONG: Final = (("authorization", "Bearer no-such-key"),)


@dataclass
class Told:
    """How a request ended, and what came before its body or with its status."""

    outcome: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None

    @property
    def missing(self) -> list[str]:
        """Headers that every response has."""
        return [name for name in TOLD if name not in self.headers]


@dataclass
class House:
    """A service with these plans, and HTTP before it: its own, and a shim's over gRPC."""

    desk: Desk
    urls: Mapping[str, str]
    _made: list[str] = field(default_factory=list)

    @property
    def stub(self) -> Any:
        return CompletionServiceStub(self.desk.channel)

    async def key(self, plan: str = "roomy", **more: Any) -> Metadata:
        """Of an organisation of its own."""
        more.setdefault("organization", f"org-{plan}-{len(self._made)}")
        self._made.append(plan)
        return await self.desk.new_key(plan=plan, **more)


@asynccontextmanager
async def house(
    folder: Path, script: Any, *, heartbeat_s: float = LIMIT_S, **sections: Any
) -> AsyncIterator[House]:
    """Both ways to it over HTTP are open."""
    sections = {"plans": PLANS, "server": {"heartbeat_s": heartbeat_s}, **sections}
    async with (
        upstream(script) as provider,
        desk(new_sqlite(folder), provider.url, **sections) as found,
        grpc.aio.insecure_channel(found.service.grpc_address) as channel,
    ):
        dialects: list[Dialect] = [
            OpenAIShim(channel, heartbeat_s=heartbeat_s),
            SpekoShim(channel, heartbeat_s=heartbeat_s),
        ]
        async with serving(RestApp(dialects, {}, limits=Limits(channel))) as shim:
            local = f"http://{found.service.http_address}"
            yield House(found, {"local": local, "shim": f"http://127.0.0.1:{shim.port}"})


@asynccontextmanager
async def client(house: House, edge: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.urls[edge], timeout=LIMIT_S) as http:
        yield http


def chat(model: str = "m", **more: Any) -> dict[str, Any]:
    """A body for OpenAI's path."""
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


def speko(**more: Any) -> dict[str, Any]:
    """A body for Speko's path."""
    hi = [{"role": "user", "content": "hi"}]
    return {"messages": hi, "intent": {"language": "en"}, **more}


async def over_http(
    http: httpx.AsyncClient, method: str, path: str, key: Metadata, **more: Any
) -> Told:
    """Ask; the whole response is read."""
    headers = {**dict(key), **more.pop("headers", {})}
    response = await http.request(method, path, headers=headers, **more)
    names = [name for name, _ in response.headers.multi_items()]
    assert len(set(names)) == len(names)
    after = response.headers.get("retry-after-ms")
    return Told(
        response.status_code, dict(response.headers), None if after is None else int(after) / 1000
    )


async def over_grpc(call: Any) -> Told:
    """The end of a unary or streaming call. What it was told is in the metadata of its beginning, or of its failure."""
    try:
        if isinstance(call, grpc.aio.UnaryStreamCall):
            assert [response async for response in call]
        else:
            await call
    except grpc.aio.AioRpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        retry = error_details_pb2.RetryInfo()
        after_s = None
        if any(detail.Unpack(retry) for detail in status_of(error).details):
            after_s = retry.retry_delay.ToMicroseconds() / 1e6
            assert int(trailers["grpc-retry-pushback-ms"]) == pytest.approx(after_s * 1000, abs=1)
        return Told(reason_of(error)[1], trailers, after_s)
    return Told("OK", dict(await call.initial_metadata()))


@pytest.fixture(params=["local", "shim"])
def edge(request: pytest.FixtureRequest) -> str:
    """How HTTP reaches the service."""
    name: str = request.param
    return name


def by_model(exchange: Exchange) -> Sequence[Step]:
    """Model `bad` fails, the rest answer."""
    if exchange.json["model"] == "bad":
        return whole({"error": {"message": "no"}}, 500)
    return hello(exchange)


def models(url: str) -> list[dict[str, Any]]:
    prices = {"input_price": 1.0, "output_price": 2.0}
    return [{"id": name, "provider": "a", **prices} for name in ("m", "bad")]


async def test_every_response_over_http_tells_the_limits(tmp_path, edge):
    async with (
        house(tmp_path, by_model, models=models("")) as found,
        client(found, edge) as http,
    ):
        key, admin = await found.key(), found.desk.root
        reader = await found.key(scopes=["read"])
        poor = await found.key("prepaid")
        narrow, modest = await found.key("narrow"), await found.key("modest")
        second = await found.key("spent")
        for _ in range(2):
            await over_http(http, "GET", "/v1/models", second)
        asked: list[tuple[int, str, str, Metadata, Any]] = [
            (200, "POST", CHAT, key, chat()),
            (200, "POST", CHAT, key, chat(stream=True)),
            (400, "POST", CHAT, key, "{"),
            (400, "POST", CHAT, key, {"model": "m"}),
            (400, "POST", CHAT, key, chat(temperature=17)),
            (401, "POST", CHAT, WRONG, chat()),
            (401, "POST", CHAT, WRONG, chat(stream=True)),
            (401, "POST", CHAT, (), chat()),
            (402, "POST", CHAT, poor, chat()),
            (402, "POST", CHAT, poor, chat(stream=True)),
            (403, "POST", CHAT, reader, chat()),
            (403, "POST", CHAT, narrow, chat()),
            (403, "POST", CHAT, modest, chat(stream=True)),
            (404, "POST", CHAT, key, chat("nothing")),
            (404, "GET", CHAT, key, None),
            (404, "GET", "/v1/no/such/path", key, None),
            (404, "GET", "/v1/no/such/path", (), None),
            (429, "POST", CHAT, second, chat()),
            (429, "POST", CHAT, second, chat(stream=True)),
            (429, "POST", CHAT, second, "{"),
            (502, "POST", CHAT, key, chat("bad")),
            (502, "POST", CHAT, key, chat("bad", stream=True)),
            (200, "GET", "/v1/models", key, None),
            (200, "GET", "/v1/models/m", key, None),
            (404, "GET", "/v1/models/nothing", key, None),
            (401, "GET", "/v1/models", WRONG, None),
            (403, "GET", "/v1/models", reader, None),
            (200, "POST", COMPLETE, key, speko()),
            (400, "POST", COMPLETE, key, "[]"),
            (401, "POST", COMPLETE, WRONG, speko()),
            (402, "POST", COMPLETE, poor, speko()),
            (429, "POST", COMPLETE, second, speko()),
            (200, "GET", "/v1/routing/preview?language=en", key, None),
            (400, "GET", "/v1/routing/preview?region=" + "x" * 2_000, key, None),
            (200, "GET", "/v1/usage", reader, None),
            (400, "GET", "/v1/usage?from=yesterday", reader, None),
            (200, "GET", "/v1/credits/balance", reader, None),
            (400, "GET", "/v1/credits/balance?x=1", reader, None),
            (200, "GET", "/v1/credits/ledger", admin, None),
            (401, "GET", "/v1/credits/ledger", WRONG, None),
        ]
        wrong = []
        for status, method, path, who, body in asked:
            sent = body if isinstance(body, str) else None if body is None else json.dumps(body)
            told = await over_http(http, method, path, who, content=sent)
            if told.outcome != status or told.missing:
                wrong.append(f"{method} {path[:40]} {sent} {status}: {told.outcome} {told.missing}")

    assert not wrong, "\n".join(wrong)


async def test_every_response_over_grpc_tells_the_limits(tmp_path):
    async with house(tmp_path, by_model, models=models("")) as found:
        key, root = await found.key(), found.desk.root
        reader, poor = await found.key(scopes=["read"]), await found.key("prepaid")
        narrow, second = await found.key("narrow"), await found.key("spent")
        stub, catalog = found.stub, CatalogServiceStub(found.desk.channel)
        admin, account = found.desk.admin, found.desk.account
        for _ in range(2):
            await over_grpc(catalog.ListModels(ListModelsRequest(), metadata=second))
        hurried = CompleteRequest(spec=spec("m"))
        hurried.stream_options.heartbeat_interval.nanos = 1
        large = CompleteUnaryRequest(spec=spec("m", text="x" * (MAX_REQUEST_BYTES + 1)))
        raw: Any = found.desk.channel.unary_unary("/trunkline.v1.CompletionService/CompleteUnary")
        raw_stream: Any = found.desk.channel.unary_stream(
            "/trunkline.v1.CompletionService/Complete"
        )
        unknown: Any = found.desk.channel.unary_unary("/trunkline.v1.CompletionService/Nothing")

        def stream(model: str = "m", key: Metadata = key) -> Any:
            return stub.Complete(CompleteRequest(spec=spec(model)), metadata=key)

        def unary(model: str = "m", key: Metadata = key) -> Any:
            return stub.CompleteUnary(CompleteUnaryRequest(spec=spec(model)), metadata=key)

        asked: list[tuple[str, Callable[[], Any]]] = [
            ("OK", stream),
            ("OK", unary),
            ("ALL_PROVIDERS_FAILED", lambda: stream("bad")),
            ("ALL_PROVIDERS_FAILED", lambda: unary("bad")),
            ("MODEL_NOT_FOUND", lambda: stream("nothing")),
            ("MODEL_NOT_FOUND", lambda: unary("nothing")),
            ("INVALID_API_KEY", lambda: stream("m", WRONG)),
            ("INVALID_API_KEY", lambda: unary("m", WRONG)),
            ("INSUFFICIENT_CREDITS", lambda: stream("m", poor)),
            ("INSUFFICIENT_CREDITS", lambda: unary("m", poor)),
            ("PERMISSION_DENIED", lambda: unary("m", reader)),
            ("ROUTE_NOT_ALLOWED", lambda: unary("m", narrow)),
            ("RATE_LIMITED", lambda: stream("m", second)),
            ("RATE_LIMITED", lambda: unary("m", second)),
            ("RATE_LIMITED", lambda: raw(b"\xff", metadata=second)),
            ("EMPTY_PROMPT", lambda: stub.Complete(CompleteRequest(), metadata=key)),
            ("INVALID_REQUEST", lambda: stub.Complete(hurried, metadata=key)),
            ("INVALID_REQUEST", lambda: raw(b"\xff", metadata=key)),
            ("INVALID_REQUEST", lambda: raw_stream(b"\xff", metadata=key)),
            ("INVALID_API_KEY", lambda: raw(b"\xff", metadata=WRONG)),
            ("PAYLOAD_TOO_LARGE", lambda: stub.CompleteUnary(large, metadata=key)),
            ("UNIMPLEMENTED", lambda: unknown(b"", metadata=key)),
            ("OK", lambda: stub.PreviewRoute(PreviewRouteRequest(), metadata=key)),
            (
                "PERMISSION_DENIED",
                lambda: stub.PreviewRoute(PreviewRouteRequest(), metadata=reader),
            ),
            ("OK", lambda: catalog.ListModels(ListModelsRequest(), metadata=key)),
            (
                "INVALID_REQUEST",
                lambda: catalog.ListModels(ListModelsRequest(page_size=-1), metadata=key),
            ),
            ("MODEL_NOT_FOUND", lambda: catalog.GetModel(GetModelRequest(), metadata=key)),
            ("OK", lambda: account.GetBalance(GetBalanceRequest(), metadata=reader)),
            (
                "NOT_FOUND",
                lambda: account.GetBalance(
                    GetBalanceRequest(organization="others"), metadata=reader
                ),
            ),
            ("INVALID_API_KEY", lambda: account.GetBalance(GetBalanceRequest(), metadata=WRONG)),
            ("OK", lambda: admin.ListKeys(ListKeysRequest(), metadata=root)),
            ("INVALID_REQUEST", lambda: admin.CreateKey(CreateKeyRequest(), metadata=root)),
            ("PERMISSION_DENIED", lambda: admin.ListKeys(ListKeysRequest(), metadata=key)),
            ("INVALID_API_KEY", lambda: admin.ListKeys(ListKeysRequest(), metadata=())),
        ]
        wrong = []
        for number, (reason, ask) in enumerate(asked):
            told = await over_grpc(ask())
            if told.outcome != reason or told.missing:
                wrong.append(f"{number} {reason}: {told.outcome} {told.missing}")
    assert not wrong, "\n".join(wrong)


async def test_the_limits_are_those_of_the_plan(tmp_path):
    async with house(tmp_path, hello) as found:
        key = await found.key("words")

        told = await over_grpc(
            found.stub.CompleteUnary(CompleteUnaryRequest(spec=spec("m")), metadata=key)
        )

    assert told.headers["ratelimit-policy"] == '"requests";q=500;w=1, "tokens";q=60000;w=60'
    assert told.headers["ratelimit"].startswith('"requests";r=499;t=1, "tokens";r=5')
    # The tokens are nearer to their end than the requests.
    assert told.headers["ratelimit-limit"] == told.headers["x-ratelimit-limit"] == "60000"
    assert 50_000 < int(told.headers["ratelimit-remaining"]) < 60_000 - 4_096
    assert 4 <= int(told.headers["x-ratelimit-reset"]) <= 10


async def test_a_head_that_goes_out_before_any_content_tells_the_limits(tmp_path, edge):
    slow: list[Step] = [head(), Pause(3 * HEARTBEAT_S), *answer("Hel", "lo")[1:]]
    async with (
        house(tmp_path, slow, heartbeat_s=HEARTBEAT_S) as found,
        client(found, edge) as http,
    ):
        key = await found.key()
        loop = asyncio.get_running_loop()
        for path, body in ((CHAT, chat(stream=True)), (COMPLETE, speko())):
            asked_s = loop.time()

            async with http.stream("POST", path, json=body, headers=dict(key)) as response:
                told = Told(response.status_code, dict(response.headers))
                head_s = loop.time() - asked_s
                text = (await response.aread()).decode()

            assert told.outcome == 200
            assert head_s < 2 * HEARTBEAT_S
            assert told.missing == []
            assert told.headers["ratelimit-policy"] == '"requests";q=500;w=1'
            assert text.startswith(": hb\n\n")
            assert "Hel" in text


async def test_a_stream_tells_who_answers_in_the_head_also_through_a_shim(tmp_path, edge):
    async with house(tmp_path, hello) as found, client(found, edge) as http:
        key = await found.key()

        told = await over_http(http, "POST", CHAT, key, json=chat(stream=True))

    assert told.headers["trunkline-provider"] == "a"
    assert told.headers["trunkline-model"] == "m"
    assert told.missing == []


# Told to come back


def asks(house: House, way: str, http: httpx.AsyncClient, key: Metadata) -> Awaitable[Told]:
    """One completion."""
    if way == "unary":
        request = CompleteUnaryRequest(spec=spec("m"))
        return over_grpc(house.stub.CompleteUnary(request, metadata=key))
    if way == "stream":
        return over_grpc(house.stub.Complete(CompleteRequest(spec=spec("m")), metadata=key))
    return over_http(http, "POST", CHAT, key, json=chat(stream=way == "http stream"))


@pytest.mark.usefixtures("no_chance")
async def test_who_waits_as_told_passes_and_who_comes_earlier_does_not(tmp_path):
    async with house(tmp_path, hello) as found, client(found, "shim") as http:
        ways = ("unary", "stream", "http", "http stream")
        keys = [await found.key("second") for _ in ways]
        ended = await asyncio.gather(
            *(came_back(found, way, http, key) for way, key in zip(ways, keys, strict=True))
        )
    for refused, early, late in ended:
        assert refused.outcome in ("RATE_LIMITED", 429)
        assert early.outcome == refused.outcome
        assert early.retry_after_s is not None
        assert early.retry_after_s <= EARLY_S
        assert late.outcome in ("OK", 200)
        assert refused.headers.get("retry-after", "1") == "1"


async def came_back(
    found: House, way: str, http: httpx.AsyncClient, key: Metadata
) -> tuple[Told, Told, Told]:
    """Refused; refused again, because it came too early; and as it came when it was told to."""
    time = asyncio.get_running_loop().time
    for _ in range(2):
        assert (await asks(found, way, http, key)).outcome in ("OK", 200)
    refused = await asks(found, way, http, key)
    assert refused.retry_after_s is not None
    until_s = time() + refused.retry_after_s
    await asyncio.sleep(until_s - EARLY_S - time())
    early = await asks(found, way, http, key)
    await asyncio.sleep(until_s + SPARE_S - time())
    return refused, early, await asks(found, way, http, key)


async def test_tokens_are_counted_as_used_and_not_as_foreseen(tmp_path):
    async with house(tmp_path, hello) as found:
        key = await found.key("words")
        request = CompleteUnaryRequest(spec=spec("m"))

        for _ in range(20):  # As foreseen, 14 of them are a minute's.
            told = await over_grpc(found.stub.CompleteUnary(request, metadata=key))
            assert told.outcome == "OK"

        listed = await over_grpc(
            CatalogServiceStub(found.desk.channel).ListModels(ListModelsRequest(), metadata=key)
        )
    tokens = listed.headers["ratelimit"].partition('"tokens";r=')[2].partition(";")[0]
    assert 60_000 - 20 * 13 <= int(tokens) <= 60_000


@pytest.mark.usefixtures("no_chance")
async def test_tokens_that_are_used_up_stop_completions_alone(tmp_path):
    dear = [head(), event(delta("x")), event(finish()), event(usage(9, 40_000)), event("[DONE]")]
    few = {"id": "few", "tokens_per_minute": 5_000}
    async with house(tmp_path, [*dear, END], plans=[few]) as found:
        key = await found.key("few")
        catalog = CatalogServiceStub(found.desk.channel)
        ask = CompleteRequest(spec=spec("m"))
        first = await over_grpc(found.stub.Complete(ask, metadata=key))

        second = await over_grpc(found.stub.Complete(ask, metadata=key))
        listed = await over_grpc(catalog.ListModels(ListModelsRequest(), metadata=key))

    assert first.outcome == "OK"
    assert second.outcome == "TOKEN_RATE_LIMITED"
    assert second.retry_after_s == pytest.approx((40_009 + 4_200 - 5_000) * 60 / 5_000, abs=10)
    assert second.headers["ratelimit-remaining"] == "0"
    assert listed.outcome == "OK"
    assert '"tokens";r=0' in listed.headers["ratelimit"]


# How many at once


def hanging(exchange: Exchange) -> Sequence[Step]:
    """Begins to answer and goes on for ever, for the model `m`; fails for `bad`."""
    if exchange.json["model"] == "bad":
        return whole({"error": {"message": "no"}}, 500)
    if "end" in exchange.json["messages"][-1]["content"]:
        return hello(exchange)
    return [head(), event(delta("Hel")), Hang()]


async def begun(found: House, key: Metadata) -> Any:
    """A stream that holds its place."""
    call = found.stub.Complete(CompleteRequest(spec=spec("m")), metadata=key)
    async for response in call:
        if response.HasField("text_delta"):
            return call
    raise AssertionError


async def once_free(found: House, key: Metadata, model: str = "m") -> Told:
    """The answer to a request that ends by itself, as soon as there is a place for it."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            request = CompleteUnaryRequest(spec=spec(model, text="end"))
            told = await over_grpc(found.stub.CompleteUnary(request, metadata=key))
            if told.outcome != "CONCURRENCY_EXHAUSTED":
                return told
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("no_chance")
async def test_a_place_is_free_again_however_a_request_ended(tmp_path):
    async with house(tmp_path, hanging, models=models("")) as found:
        key = await found.key("one")
        request = CompleteUnaryRequest(spec=spec("m", text="end"))
        ended = []
        for model in ("m", "bad", "nothing", "m"):
            request.spec.model = model
            told = await over_grpc(found.stub.CompleteUnary(request, metadata=key))
            ended.append(told.outcome)

        first = await begun(found, key)
        second = await over_grpc(found.stub.CompleteUnary(request, metadata=key))
        other = await over_grpc(found.stub.CompleteUnary(request, metadata=await found.key("one")))
        first.cancel()
        after_cancel = await once_free(found, key)

        async with grpc.aio.insecure_channel(found.desk.service.grpc_address) as channel:
            call = CompletionServiceStub(channel).Complete(
                CompleteRequest(spec=spec("m")), metadata=key
            )
            assert await call.read()
        after_loss = await once_free(found, key)

        async with client(found, "local") as http:
            body = chat(stream=True)
            async with http.stream("POST", CHAT, json=body, headers=dict(key)) as response:
                assert response.status_code == 200
        after_http_loss = await once_free(found, key)
    assert ended == ["OK", "ALL_PROVIDERS_FAILED", "MODEL_NOT_FOUND", "OK"]
    assert second.outcome == "CONCURRENCY_EXHAUSTED"
    assert second.retry_after_s == 1.0
    assert second.missing == []
    assert other.outcome == "OK"  # An organisation of its own.
    assert [after_cancel.outcome, after_loss.outcome, after_http_loss.outcome] == ["OK"] * 3


async def test_a_place_is_kept_for_as_long_as_its_request_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(access, "LEASE_S", 0.4)
    monkeypatch.setattr(access, "RENEW_S", 0.1)
    async with house(tmp_path, hanging) as found:
        key = await found.key("one")
        request = CompleteUnaryRequest(spec=spec("m", text="end"))
        first = await begun(found, key)

        await asyncio.sleep(1.0)
        second = await over_grpc(found.stub.CompleteUnary(request, metadata=key))
        first.cancel()
        third = await once_free(found, key)

    assert second.outcome == "CONCURRENCY_EXHAUSTED"
    assert third.outcome == "OK"


async def test_a_request_without_a_place_costs_nothing(tmp_path):
    plans = [{"id": "tight", "requests_per_second": 0.1, "burst": 3, "concurrency": 1}]
    async with house(tmp_path, hanging, plans=plans) as found:
        key = await found.key("tight")
        request = CompleteUnaryRequest(spec=spec("m", text="end"))
        first = await begun(found, key)

        refused = [
            await over_grpc(found.stub.CompleteUnary(request, metadata=key)) for _ in range(8)
        ]
        first.cancel()
        last = await once_free(found, key)

    assert {told.outcome for told in refused} == {"CONCURRENCY_EXHAUSTED"}
    assert last.outcome == "OK"


# What else a plan says


async def test_a_plan_ends_what_takes_longer_than_it_allows(tmp_path):
    async with house(tmp_path, QUIET) as found:
        key = await found.key("short")
        loop = asyncio.get_running_loop()
        asked_s = loop.time()

        told = await over_grpc(
            found.stub.Complete(CompleteRequest(spec=spec("m")), metadata=key, timeout=20)
        )
        took_s = loop.time() - asked_s

    assert told.outcome in ("DEADLINE_EXCEEDED", "UPSTREAM_TIMEOUT", "ALL_PROVIDERS_FAILED")
    assert 0.9 < took_s < 3
    assert told.missing == []


async def test_modes_and_routes_that_a_plan_lacks_are_refused_and_others_are_served(tmp_path):
    plans = [{"id": "both", "routes": ["auto", "m"], "modes": ["auto"]}]
    async with house(tmp_path, hello, plans=plans, models=models("")) as found:
        key = await found.key("both")

        outcomes = [
            (
                await over_grpc(
                    found.stub.CompleteUnary(CompleteUnaryRequest(spec=asked), metadata=key)
                )
            ).outcome
            for asked in (spec("m"), spec(""), spec("bad"), spec("a/m"), spec("m", mode="fast"))
        ]

    assert outcomes == ["OK", "OK", *["ROUTE_NOT_ALLOWED"] * 3]


@pytest.mark.usefixtures("no_chance")
async def test_wrong_keys_count_against_their_address_and_good_ones_do_not(tmp_path):
    strict = {"id": "anonymous", "requests_per_second": 0.05, "burst": 3}
    async with (
        house(tmp_path, hello, plans=[strict]) as found,
        client(found, "local") as http,
    ):
        key = await found.key("default")
        # Over both surfaces: the address is one.
        guesses = [
            await over_http(http, "GET", "/v1/models", WRONG),
            await over_http(http, "GET", "/v1/models", ()),
            await over_grpc(
                found.stub.CompleteUnary(CompleteUnaryRequest(spec=spec("m")), metadata=WRONG)
            ),
            await over_http(http, "POST", CHAT, WRONG, json=chat()),
            await over_grpc(
                found.stub.CompleteUnary(CompleteUnaryRequest(spec=spec("m")), metadata=WRONG)
            ),
        ]

        good = await over_http(http, "GET", "/v1/models", key)

    assert [told.outcome for told in guesses] == [401, 401, "INVALID_API_KEY", 429, "RATE_LIMITED"]
    assert [told.missing for told in guesses] == [[]] * 5
    assert guesses[3].retry_after_s == pytest.approx(20, abs=1)
    assert [told.headers["ratelimit-remaining"] for told in guesses[:4]] == ["2", "1", "0", "0"]
    assert good.outcome == 200
    assert good.headers["ratelimit-limit"] != guesses[0].headers["ratelimit-limit"]


async def test_a_rate_is_exact_however_slow_it_is(tmp_path):
    rates = {3: "q=3;w=1", 0.5: "q=30;w=60", 0.025: "q=90;w=3600", 2.5: "q=150;w=60"}
    plans = [{"id": f"at-{rate}", "requests_per_second": rate} for rate in rates]
    async with house(tmp_path, hello, plans=plans) as found:
        catalog = CatalogServiceStub(found.desk.channel)

        listed = [
            await over_grpc(
                catalog.ListModels(ListModelsRequest(), metadata=await found.key(f"at-{rate}"))
            )
            for rate in rates
        ]

    policies = [told.headers["ratelimit-policy"] for told in listed]
    assert policies == [f'"requests";{policy}' for policy in rates.values()]
