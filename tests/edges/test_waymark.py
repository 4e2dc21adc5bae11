"""Speechify's chat completions: three routes that are panels, what they tell of themselves, and their errors.

Over both edges: the service's own, and a shim that reaches it over the network.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest
import pytest_asyncio

from tests.edges.http11 import serving
from tests.edges.observed import LIMIT_S
from tests.support.accounts import PRICES, desk, new_sqlite
from tests.support.service import model, service
from tests.support.upstream import (
    Exchange,
    Hang,
    Pause,
    Reset,
    Step,
    Upstream,
    delta,
    event,
    head,
    upstream,
    whole,
)
from tests.support.waymark import (
    ANSWERS,
    CALL,
    CITY,
    MODELS,
    ROUTES,
    Table,
    agreed,
    fast,
    moa,
    pieces,
    role,
    said,
    sections,
    table,
    total,
    widest,
)
from trunkline_server.app import Service
from trunkline_server.edges.rest.app import RestApp
from trunkline_server.edges.rest.http import Limits
from trunkline_server.edges.rest.openai import OpenAIShim

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: Final = "/v1/chat/completions"
EDGES: Final = ("local", "shim")
KEY: Final = "sk-a-key-of-these-tests"
BEARER: Final = {"authorization": f"Bearer {KEY}"}
LIMITS: Final = ("limit", "remaining", "reset")
TOLD: Final = {f"{prefix}ratelimit-{name}" for prefix in ("", "x-") for name in LIMITS}
HEARTBEAT_S: Final = (
    0.5  # Long enough for a busy machine to tell an earlier timer from a later one.
)
CITY_FORM: Final = {
    "type": "json_schema",
    "json_schema": {
        "name": "City",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
            "required": ["city", "people"],
            "additionalProperties": False,
        },
    },
}
TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Finds it.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
_numbers = count()


@dataclass
class Edges:
    """A running service and its upstream, with a client for each edge."""

    service: Service
    upstream: Upstream
    http: Mapping[str, httpx.AsyncClient]

    def asked(self, name: str) -> list[Exchange]:
        """What the upstream was asked for one question."""
        return [e for e in self.upstream.exchanges if name in e.body.decode()]


@asynccontextmanager
async def both(
    scripted: Upstream, started: Service, heartbeat_s: float = 15.0
) -> AsyncIterator[Edges]:
    """The edges of a service."""
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(started.grpc_address, options=[("grpc.enable_retries", 0)])
        )
        app = RestApp([OpenAIShim(channel, heartbeat_s=heartbeat_s)], {}, limits=Limits(channel))
        served = await stack.enter_async_context(serving(app))
        urls = {"local": started.http_address, "shim": f"127.0.0.1:{served.port}"}
        clients = {
            name: await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://{url}", headers=BEARER, timeout=LIMIT_S)
            )
            for name, url in urls.items()
        }
        yield Edges(started, scripted, clients)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges() -> AsyncIterator[Edges]:
    """With the panels that come along, for callers with a key."""
    async with (
        upstream(Table()) as scripted,
        service(
            environment={"KEY": KEY},
            keys=[{"id": "tests", "key_env": "KEY"}],
            **sections(scripted.url),
        ) as started,
        both(scripted, started) as found,
    ):
        yield found


@pytest.fixture(params=EDGES)
def edge(request: pytest.FixtureRequest) -> str:
    """The service's own port, or the shim before it."""
    name: str = request.param
    return name


@pytest.fixture
def http(edges: Edges, edge: str) -> httpx.AsyncClient:
    return edges.http[edge]


def named(case: str) -> str:
    """A question that nobody asked before."""
    return f"{case} {next(_numbers)}."


def asked(route: str, case: str, **more: Any) -> dict[str, Any]:
    """A body."""
    return {"model": route, "messages": [{"role": "user", "content": named(case)}], **more}


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    """Of a stream that ended well."""
    *blocks, last, end = response.text.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    return [json.loads(block.removeprefix("data: ")) for block in blocks if block != ": hb"]


def text_of(found: list[dict[str, Any]]) -> str:
    """Of a stream's only choice."""
    pieces = [choice["delta"].get("content") for chunk in found for choice in chunk["choices"]]
    return "".join(piece or "" for piece in pieces)


def counts(usage: Mapping[str, Any]) -> list[int]:
    return [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")]


ROWS: Final = {"waymark-fast": fast(), "waymark-moa": moa(), "waymark-max": widest()}
TEXTS: Final = {
    route: "".join(ANSWERS["single" if route == "waymark-fast" else "aggregator"])
    for route in ROUTES
}


# Answers


@pytest.mark.parametrize("route", ROUTES)
async def test_an_answer_tells_of_its_panel(http, route):
    response = await http.post(CHAT, json=asked(route, "plain"))

    answer = response.json()
    assert response.status_code == 200
    assert answer["object"] == "chat.completion"
    assert answer["model"] == route
    assert [
        (c["index"], c["message"]["content"], c["finish_reason"]) for c in answer["choices"]
    ] == [(0, TEXTS[route], "stop")]
    assert answer["waymark"] == table(route, ROWS[route])
    assert counts(answer["usage"]) == total(ROWS[route])
    assert response.headers["speechify-route"] == route
    assert response.headers.keys() >= TOLD


@pytest.mark.parametrize("includes_usage", [False, True], ids=["", "with usage"])
@pytest.mark.parametrize("route", ROUTES)
async def test_the_last_chunk_of_a_stream_tells_of_its_panel(http, route, includes_usage):
    body = asked(route, "plain", stream=True)
    if includes_usage:
        body["stream_options"] = {"include_usage": True}

    response = await http.post(CHAT, json=body)

    found = chunks(response)
    assert response.status_code == 200
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in found} == {route}
    assert text_of(found) == TEXTS[route]
    assert [chunk.get("waymark") for chunk in found] == [
        *[None] * (len(found) - 1), table(route, ROWS[route]),
    ]  # fmt: skip
    if includes_usage:
        assert found[-1]["choices"] == []
        assert [c["usage"] and counts(c["usage"]) for c in found] == [
            *[None] * (len(found) - 1), total(ROWS[route]),
        ]  # fmt: skip
    else:
        assert [c["finish_reason"] for c in found[-1]["choices"]] == ["stop"]
        assert not any("usage" in chunk for chunk in found)
    assert response.headers["speechify-route"] == route
    assert response.headers.keys() >= TOLD


ESCALATIONS: Final[dict[str, tuple[str, str, str, dict[str, Any]]]] = {
    "a refusal": ("waymark-fast", "refusal", "It is four.", {"models": [*fast("unused"), *moa()]}),
    # In a form all proposals are the same one.
    "a form that does not fit": (
        "waymark-fast", "bad-form", CITY, {"models": [*fast("unused"), *agreed()], "stopped_early": True},
    ),
    "proposals that differ": (
        "waymark-moa", "different", "It is four.", {"models": [*moa("unused", is_answered=False), *widest()]},
    ),
}  # fmt: skip
REASONS: Final = {"refusal": "refusal", "bad-form": "invalid_output", "different": "disagreement"}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("why", ESCALATIONS)
async def test_the_route_that_is_told_is_the_one_that_served_after_an_escalation(
    http, why, streams
):
    route, case, said, told = ESCALATIONS[why]
    wider = "waymark-max" if route == "waymark-moa" else "waymark-moa"
    form = {"response_format": CITY_FORM} if case == "bad-form" else {}

    response = await http.post(CHAT, json=asked(route, case, stream=streams, **form))

    assert response.status_code == 200
    if streams:
        found = chunks(response)
        answer, served = found[-1], {chunk["model"] for chunk in found}
        text = text_of(found)
    else:
        answer = response.json()
        served, text = {answer["model"]}, answer["choices"][0]["message"]["content"]
        assert counts(answer["usage"]) == total(told["models"])
    assert response.headers.get_list("speechify-route") == [wider]
    assert served == {wider}
    assert text == said
    assert answer["waymark"] == table(
        wider, requested_route=route, escalated=True, escalation_reason=REASONS[case], **told
    )


def leaves_c(exchange: Exchange) -> list[Step]:
    """`c` has begun when the others are done, and goes no further."""
    if exchange.json["model"] == "c":
        return [head(), event(delta("Well,")), Hang()]
    return [Pause(0.3), *said(exchange, role(exchange), *pieces(exchange))]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
async def test_what_a_cancelled_member_has_begun_is_estimated_and_counted(edge, streams):
    async with (
        upstream(leaves_c) as scripted,
        service(**sections(scripted.url)) as started,
        both(scripted, started) as found,
    ):
        body = asked("waymark-moa", "plain", stream=streams, stream_options={"include_usage": True})
        response = await found.http[edge].post(CHAT, json=body)

    answer = chunks(response)[-1] if streams else response.json()
    models = moa()
    # Four characters to a token.
    asked_tokens = -(-len(body["messages"][0]["content"]) // 4)
    models[2] |= {"input_tokens": asked_tokens, "output_tokens": 2, "estimated": True}
    assert answer["waymark"] == table("waymark-moa", models)
    assert counts(answer["usage"]) == total(models)
    assert answer["trunkline"]["usage_estimated"] is True


async def test_who_does_not_want_an_escalation_gets_the_refusal(http):
    body = asked("waymark-fast", "refusal")
    body["trunkline"] = {"constraints": {"disable_escalation": True}}

    response = await http.post(CHAT, json=body)

    assert response.json()["waymark"] == table("waymark-fast", fast())
    assert response.json()["choices"][0]["message"]["content"].startswith("I'm sorry")


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", ROUTES)
async def test_the_caller_is_asked_to_run_its_tools_by_who_answers(edges, http, route, streams):
    body = asked(route, "tools", tools=TOOLS, stream=streams)

    response = await http.post(CHAT, json=body)

    if streams:
        found = chunks(response)
        pieces = [
            c["delta"]["tool_calls"][0]
            for chunk in found
            for c in chunk["choices"]
            if c["delta"].get("tool_calls")
        ]
        call = {"id": pieces[0]["id"], "name": pieces[0]["function"]["name"]}
        call["arguments"] = "".join(piece["function"]["arguments"] for piece in pieces)
        answer, reason = found[-1], found[-1]["choices"][0]["finish_reason"]
    else:
        answer = response.json()
        (told,) = answer["choices"][0]["message"]["tool_calls"]
        call = {"id": told["id"], **told["function"]}
        reason = answer["choices"][0]["finish_reason"]
    assert call == dict(zip(("id", "name", "arguments"), CALL, strict=True))
    assert reason == "tool_calls"
    assert answer["waymark"] == table(route, ROWS[route])
    with_tools = [role(e) for e in edges.asked(body["messages"][0]["content"]) if "tools" in e.json]
    assert with_tools == ["single" if route == "waymark-fast" else "aggregator"]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_form_is_asked_of_everybody_but_the_critic(edges, http, route, streams):
    body = asked(route, "form", response_format=CITY_FORM, stream=streams)

    response = await http.post(CHAT, json=body)

    if streams:
        text, answer = text_of(chunks(response)), chunks(response)[-1]
    else:
        answer = response.json()
        text = answer["choices"][0]["message"]["content"]
    assert text == CITY
    # Proposals that are the same spare the aggregator its work.
    expected = agreed() if route == "waymark-moa" else ROWS[route]
    assert answer["waymark"] == table(route, expected, stopped_early=route == "waymark-moa")
    forms = {
        role(e): e.json.get("response_format") for e in edges.asked(body["messages"][0]["content"])
    }
    roles = [row["role"] for row in expected]
    assert forms == {
        ("single" if route == "waymark-fast" else name): None if name == "critic" else CITY_FORM
        for name in roles
    }


@pytest.mark.parametrize("route", ROUTES)
async def test_what_this_api_does_not_know_goes_to_every_member(edges, http, route):
    unknown = {"service_hint": {"lane": [1, None, "é"]}, "store": True}
    body = asked(route, "plain", **unknown)

    response = await http.post(CHAT, json=body)

    assert response.status_code == 200
    sent = [
        {name: e.json.get(name) for name in unknown}
        for e in edges.asked(body["messages"][0]["content"])
    ]
    assert sent == [unknown] * len(ROWS[route])


async def test_the_three_routes_are_listed(http):
    listed = (await http.get("/v1/models")).json()["data"]
    one = (await http.get("/v1/models/waymark-moa")).json()

    owners = {
        found["id"]: found["owned_by"] for found in listed if not found["id"].startswith("theo-")
    }
    assert owners == {
        **{name: f"p{name}" for name in MODELS}, **dict.fromkeys(ROUTES, "trunkline"),
    }  # fmt: skip
    assert one in listed


async def test_an_answer_of_a_model_says_nothing_of_panels(http):
    whole = await http.post(CHAT, json=asked("a", "plain"))
    streamed = await http.post(CHAT, json=asked("a", "plain", stream=True))

    assert "waymark" not in whole.json()
    assert not any("waymark" in chunk for chunk in chunks(streamed))
    for response in (whole, streamed):
        assert response.status_code == 200
        assert "speechify-route" not in response.headers


# While the panel works


def late(exchange: Exchange) -> list[Step]:
    """Whoever is asked first takes longer than a silence may last."""
    steps = said(exchange, role(exchange), *pieces(exchange))
    return steps if role(exchange) == "aggregator" else [Pause(1.4 * HEARTBEAT_S), *steps]


@pytest.mark.parametrize("route", ["waymark-fast", "waymark-moa"])
async def test_comments_keep_a_silent_panel_awake_below_the_head_that_names_it(route):
    async with (
        upstream(late) as scripted,
        service(server={"heartbeat_s": HEARTBEAT_S}, **sections(scripted.url)) as started,
        both(scripted, started, HEARTBEAT_S) as found,
    ):
        responses = await asyncio.gather(
            *(
                http.post(CHAT, json=asked(route, "late", stream=True))
                for http in found.http.values()
            )
        )

    for response in responses:
        told = chunks(response)
        assert response.status_code == 200
        assert response.text.startswith(": hb\n\n"), "before the first chunk"
        assert text_of(told) == TEXTS[route]
        assert response.headers["speechify-route"] == route
        assert {chunk["model"] for chunk in told} == {route}
        assert told[-1]["waymark"]["route"] == route


# Versions


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("version", ["2026-01-31", "2024-02-29", "0001-01-01", "9999-12-31"])
async def test_a_version_is_repeated(http, version, streams):
    body = asked("waymark-fast", "plain", stream=streams)

    response = await http.post(CHAT, json=body, headers={"Speechify-Version": version})

    assert response.status_code == 200
    assert response.headers["speechify-version"] == version


async def test_without_a_version_none_is_told(http):
    response = await http.post(CHAT, json=asked("waymark-fast", "plain"))

    assert response.status_code == 200
    assert "speechify-version" not in response.headers


async def test_a_version_is_repeated_with_errors(http):
    version = {"Speechify-Version": "2026-01-31"}
    responses = [
        await http.post(CHAT, json=asked("waymark-fast", "plain", temperature=9), headers=version),
        await http.post(CHAT, content=b"{", headers=version),
        await http.post(CHAT, json=asked("waymark-moo", "plain"), headers=version),
        await http.post(CHAT, json=asked("waymark-fast", "plain"), headers={**version, "authorization": "Bearer no"}),
    ]  # fmt: skip

    assert [r.status_code for r in responses] == [400, 400, 404, 401]
    assert [r.headers.get("speechify-version") for r in responses] == ["2026-01-31"] * 4


BAD_VERSIONS: Final = {
    "a word": ["latest"],
    "nothing": [""],
    "a month": ["2026-01"],
    "a time": ["2026-01-31T00:00:00Z"],
    "no such day": ["2026-02-30"],
    "no such leap day": ["2025-02-29"],
    "no such month": ["2026-13-01"],
    "no such year": ["0000-01-01"],
    "short": ["26-1-31"],
    "without signs": ["20260131"],
    "a week": ["2026-W05-6"],
    "twice": ["2026-01-31", "2026-01-31"],
    "two in one": ["2026-01-31, 2026-01-31"],
    "much": ["2026-01-31" * 100],
}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("version", BAD_VERSIONS)
async def test_what_is_no_version_is_refused(edges, http, version, streams):
    headers = [("speechify-version", value) for value in BAD_VERSIONS[version]]
    before = len(edges.upstream.exchanges)

    response = await http.post(
        CHAT, json=asked("waymark-fast", "plain", stream=streams), headers=headers
    )

    assert response.status_code == 400
    assert response.json() == {
        "error": {
            "message": "must be one ISO date, as 2026-01-31",
            "type": "invalid_request_error",
            "param": "speechify-version",
            "code": "invalid_api_version",
        }
    }
    assert response.headers["x-should-retry"] == "false"
    assert "speechify-version" not in response.headers
    assert response.headers.keys() >= TOLD
    assert len(edges.upstream.exchanges) == before


# Errors


def refused(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


INVALID: Final = "invalid_request_error"


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", ROUTES)
async def test_errors_of_the_request_are_openais(http, route, streams):
    body = asked(route, "plain", stream=streams, temperature=9)
    unknown = f"no model, alias or route is called '{route}o'; did you mean '{route}'?"

    responses = [
        await http.post(CHAT, json=body),
        await http.post(CHAT, json=asked(route, "plain", stream=streams), headers={"authorization": "Bearer no"}),
        await http.post(CHAT, json=asked(f"{route}o", "plain", stream=streams)),
    ]  # fmt: skip

    assert [(r.status_code, r.json()) for r in responses] == [
        (400, refused("temperature: 0 to 2", INVALID, None, "temperature")),
        (401, refused("missing or unknown API key", "authentication_error", "invalid_api_key")),
        (404, refused(unknown, INVALID, "model_not_found")),
    ]  # fmt: skip
    for response in responses:
        assert response.headers.keys() >= TOLD
        assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("route", ROUTES[1:])
async def test_a_panel_gives_one_choice(http, route):
    response = await http.post(CHAT, json=asked(route, "plain", n=2))

    assert response.status_code == 400
    assert response.json() == refused("n: must be 1 with a panel", INVALID, None, "n")


def everybody(exchange: Exchange) -> list[Step]:
    """Each model fails alike, by the question."""
    case = exchange.json["messages"][0]["content"].split()[0]
    if case == "throttled":
        return whole({"error": {"message": "slow down"}}, 429, "retry-after: 7")
    return whole({"error": {"message": "secret", "code": "invalid_api_key"}}, 401)


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize(("edge", "streams"), [("local", False), ("shim", True)])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("case", "status", "kind", "code"),
    [
        ("failing", 502, "server_error", "all_providers_failed"),
        ("throttled", 429, "rate_limit_error", "rate_limit_exceeded"),
    ],
)
async def test_a_panel_that_has_nobody_left_fails_as_one_model(
    edge, route, case, status, kind, code, streams
):
    async with (
        upstream(everybody) as scripted,
        service(**sections(scripted.url)) as started,
        both(scripted, started) as found,
    ):
        response = await found.http[edge].post(CHAT, json=asked(route, case, stream=streams))

    error = response.json()["error"]
    assert response.status_code == status
    assert (error["type"], error["code"], error["param"]) == (kind, code, None)
    assert "secret" not in response.text
    assert response.headers.keys() >= TOLD
    assert response.headers.get("retry-after") == ("7" if case == "throttled" else None)


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
async def test_a_panel_whose_answer_breaks_off_ends_with_an_error_in_the_stream(edge, streams):
    def broken(exchange: Exchange) -> list[Step]:
        steps = said(exchange, role(exchange), *pieces(exchange))
        if role(exchange) != "aggregator":
            return steps
        return [*steps[:2], Reset()] if exchange.json.get("stream") else [Reset()]

    async with (
        upstream(broken) as scripted,
        service(**sections(scripted.url)) as started,
        both(scripted, started) as found,
    ):
        body = asked("waymark-moa", "plain", stream=streams)
        response = await found.http[edge].post(CHAT, json=body)

    if streams:
        *_, last, end = response.text.split("\n\n")
        assert response.status_code == 200
        assert end == ""
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stream_interrupted"
    else:  # Who has seen nothing yet gets the best proposal.
        assert response.status_code == 200
        assert response.json()["waymark"]["degraded"] is True
        assert response.json()["choices"][0]["message"]["content"] == "".join(ANSWERS["proposer"])


async def test_a_route_that_is_for_other_plans_is_refused(edge):
    async with (
        upstream(Table()) as scripted,
        service(
            environment={"KEY": KEY, "WIDE": "sk-of-the-widest-plan"},
            keys=[
                {"id": "tests", "key_env": "KEY"},
                {"id": "wide", "key_env": "WIDE", "plan": "max"},
            ],
            plans=[{"id": "default", "routes": ["waymark-fast", "waymark-max"]}, {"id": "max"}],
            routes=[
                {"id": "waymark-max", "panel": {"size": 6, "critique": True}, "plans": ["max"]}
            ],
            **sections(scripted.url),
        ) as started,
        both(scripted, started) as found,
    ):
        http = found.http[edge]
        responses = [
            await http.post(CHAT, json=asked(route, "plain", stream=streams))
            for route in ("waymark-moa", "waymark-max")
            for streams in (False, True)
        ]
        kept = await http.post(CHAT, json=asked("waymark-fast", "refusal"))
        exchanges = len(scripted.exchanges)
        bearer = {"authorization": "Bearer sk-of-the-widest-plan"}
        served = await http.post(CHAT, json=asked("waymark-max", "plain"), headers=bearer)

    of_plan = "the plan 'default' does not have this model or route"
    of_route = "the plan 'default' does not have the route 'waymark-max'"
    for response, why in zip(responses, [of_plan, of_plan, of_route, of_route], strict=True):
        assert response.status_code == 403
        assert response.json() == refused(why, "permission_error", "route_not_allowed")
        assert response.headers.keys() >= TOLD
        assert response.headers["x-should-retry"] == "false"
    # Nor does an escalation lead there.
    assert kept.json()["waymark"] == table("waymark-fast", fast())
    assert exchanges == 1
    assert served.json()["waymark"]["route"] == "waymark-max"


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
async def test_who_is_over_a_limit_is_told_so(edge, streams):
    async with (
        upstream(Table()) as scripted,
        service(
            plans=[{"id": "anonymous", "requests_per_second": 0.02, "burst": 1}],
            **sections(scripted.url),
        ) as started,
        both(scripted, started) as found,
    ):
        http = found.http[edge]
        first = await http.post(CHAT, json=asked("waymark-moa", "plain", stream=streams))
        second = await http.post(CHAT, json=asked("waymark-moa", "plain", stream=streams))

    assert (first.status_code, second.status_code) == (200, 429)
    assert second.json()["error"]["code"] == "rate_limit_exceeded"
    assert second.json()["error"]["type"] == "rate_limit_error"
    for response in (first, second):
        told = {name: response.headers[name] for name in TOLD}
        assert (told["ratelimit-limit"], told["ratelimit-remaining"]) == ("72", "0")  # In an hour.
        assert 45 <= int(told["ratelimit-reset"]) <= 50
        assert all(told[f"x-ratelimit-{name}"] == told[f"ratelimit-{name}"] for name in LIMITS)
    assert 45 <= int(second.headers["retry-after"]) <= 50


async def test_who_has_no_credits_for_the_panel_is_told_so(edge, tmp_path: Path):
    async with (
        upstream(Table()) as scripted,
        desk(
            new_sqlite(tmp_path), scripted.url,
            **sections(
                scripted.url,
                models=[model(name, f"p{name}", **PRICES) for name in MODELS],
            ),
        ) as running,
        both(scripted, running.service) as found,
    ):  # fmt: skip
        ((_, bearer),) = await running.new_key(plan="prepaid")
        headers = {"authorization": bearer}
        # A fifth of a cent: 0.0082 for one answer without a limit of its own, more for a panel.
        await running.grant(2_000_000)
        http = found.http[edge]
        broke = [
            await http.post(CHAT, json=asked(route, "plain", stream=streams), headers=headers)
            for route in ROUTES
            for streams in (False, True)
        ]
        paid = await http.post(
            CHAT, json=asked("waymark-fast", "refusal", max_tokens=500), headers=headers
        )

    for response in broke:
        error = response.json()["error"]
        assert response.status_code == 402
        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_credits")
        assert response.headers.keys() >= TOLD
        assert response.headers["x-should-retry"] == "false"
    # Nor does an escalation that there are no credits for.
    assert paid.status_code == 200
    assert paid.json()["waymark"]["route"] == "waymark-fast"


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
async def test_an_answer_that_is_told_again_is_told_with_its_panel(edge, streams, tmp_path: Path):
    async with (
        upstream(Table()) as scripted,
        desk(
            new_sqlite(tmp_path), scripted.url,
            **sections(
                scripted.url,
                models=[model(name, f"p{name}", **PRICES) for name in MODELS],
            ),
        ) as running,
        both(scripted, running.service) as found,
    ):  # fmt: skip
        ((_, bearer),) = await running.new_key()
        headers = {"authorization": bearer, "idempotency-key": "once"}
        body = asked("waymark-fast", "refusal", stream=streams)
        responses = [
            await found.http[edge].post(CHAT, json=body, headers=headers) for _ in range(2)
        ]

    again = responses[1]
    assert [r.headers.get("idempotent-replayed") for r in responses] == [None, "true"]
    assert [r.headers.get("speechify-route") for r in responses] == ["waymark-moa"] * 2
    if streams:
        first, told = (chunks(response) for response in responses)
        assert {chunk["model"] for chunk in told} == {"waymark-moa"}
        assert told[-1]["waymark"] == first[-1]["waymark"]
    else:
        first, told = (response.json() for response in responses)
        assert told == first
    assert again.status_code == 200


async def test_who_comes_to_a_full_service_may_come_again(edge):
    async with (
        upstream([Hang()]) as scripted,
        service(limits={"max_in_flight": 1, "max_waiting": 0}, **sections(scripted.url)) as started,
        both(scripted, started) as found,
    ):
        http = found.http[edge]
        first = asyncio.create_task(http.post(CHAT, json=asked("waymark-fast", "plain")))
        async with asyncio.timeout(LIMIT_S):
            while not scripted.exchanges:  # noqa: ASYNC110 - a list tells nobody
                await asyncio.sleep(0.005)
        response = await http.post(CHAT, json=asked("waymark-moa", "plain"))
        first.cancel()
        await asyncio.wait([first])

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "overloaded"
    assert response.json()["error"]["type"] == "server_error"
    assert int(response.headers["retry-after"]) >= 1
