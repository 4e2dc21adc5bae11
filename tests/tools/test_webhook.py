"""Webhooks against real servers: signed so that others can tell, asked once, and never able to do us harm."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trustme
from google.protobuf.duration_pb2 import Duration
from standardwebhooks import Webhook

from tests.support.upstream import Exchange, Hang, Pause, Reset, Step, Upstream, upstream, whole
from trunkline.v1.completion_spec_pb2 import (
    BuiltinSource,
    RegisteredSource,
    Tool,
    WebhookResponseMode,
    WebhookSource,
)
from trunkline_server.core.tools import ServerTool, ToolContext, ToolOutcome
from trunkline_server.tools.egress import Egress
from trunkline_server.tools.registry import RegisteredTool, ToolRegistry
from trunkline_server.tools.replies import MAX_REPLY_BYTES
from trunkline_server.tools.webhook import DEFAULT_ACK, MAX_BACKGROUND, Deliveries

SECRET: Final = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRETS: Final = {"signing": f"whsec_{SECRET}", "bare": SECRET, "token": "Bearer s3cr3t"}
EGRESS: Final = Egress(["127.0.0.1"])
CONTEXT: Final = ToolContext("call-1", "req-1", "session-1")
ASYNC: Final = WebhookResponseMode.WEBHOOK_RESPONSE_MODE_ASYNC
MANY_BYTES: Final = [b"x" * 65_536] * 16_384  # 1 GiB, of one piece of memory.


@asynccontextmanager
async def tools(
    *registered: RegisteredTool, at: Upstream | None = None, **options: Any
) -> AsyncIterator[ToolRegistry]:
    """A registry with real time, closed afterwards. Webhooks of requests may use its secrets `at` this peer."""
    bound = {name: [f"127.0.0.1:{at.port}"] for name in SECRETS} if at is not None else None
    found = ToolRegistry(
        registered, (), SECRETS, EGRESS, now=time.time, secret_hosts=bound, **options
    )
    try:
        yield found
    finally:
        await found.close()


def webhook(registry: ToolRegistry, url: str, **fields: Any) -> ServerTool:
    """A tool of a request."""
    source = WebhookSource(url=url, **fields)
    return registry.resolve(Tool(name="lookup", webhook=source), "tool")


async def run(
    tool: ServerTool,
    arguments_json: str = "{}",
    context: ToolContext = CONTEXT,
    for_s: float = 5.0,
) -> ToolOutcome:
    """Call it."""
    until_s = asyncio.get_running_loop().time() + for_s
    return await tool.runner.run(arguments_json, context, until_s)


async def called(script: Any, for_s: float = 5.0, **fields: Any) -> tuple[ToolOutcome, Upstream]:
    """Call a webhook that answers like this."""
    async with upstream(script) as peer, tools(at=peer) as registry:
        return await run(webhook(registry, peer.url, **fields), for_s=for_s), peer


def reply(body: bytes, status: int = 200, content_type: str = "text/plain") -> list[Step]:
    """A response."""
    lines = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}"
    return [lines.encode() + b"\r\n\r\n" + body]


@pytest.mark.parametrize("secret", ["signing", "bare"])
async def test_a_call_is_an_event_that_a_standard_webhooks_receiver_accepts(secret):
    arguments = '{"city":"Z\u00fcrich","n":12345678901234567890}'
    async with upstream(whole({})) as peer, tools(at=peer) as registry:
        await run(webhook(registry, f"{peer.url}/hook?a=1", secret_ref=secret), arguments)

    (exchange,) = peer.exchanges
    headers = {
        name: exchange.header(name) or ""
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    }
    event = Webhook(SECRET).verify(exchange.body, headers)
    assert headers["webhook-id"] == "call-1"
    assert event.pop("timestamp") == time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(headers["webhook-timestamp"]))
    )
    assert event == {
        "type": "tool.call",
        "data": {
            "id": "call-1",
            "name": "lookup",
            "arguments": {"city": "Z\u00fcrich", "n": 12345678901234567890},
            "request_id": "req-1",
            "session_id": "session-1",
        },
    }
    assert exchange.head.startswith("POST /hook?a=1 HTTP/1.1\r\n")
    assert exchange.header("content-type") == "application/json"


async def test_a_call_that_is_repeated_has_the_same_id():
    context = ToolContext("r-1-call.with a strange id", "r")
    async with upstream(whole({})) as peer, tools(at=peer) as registry:
        tool = webhook(registry, peer.url, secret_ref="signing")
        await run(tool, context=context)
        await run(tool, context=context)

    first, second = (exchange.header("webhook-id") for exchange in peer.exchanges)
    assert first == second
    assert first == json.loads(peer.exchanges[0].body)["data"]["id"]


async def test_headers_and_secrets_go_where_the_tool_says():
    _, peer = await called(
        whole({}),
        headers={"X-Tenant": "t 1", "User-Agent": "mine"},
        auth_header_secret_refs={"Authorization": "token"},
    )

    (exchange,) = peer.exchanges
    assert exchange.header("x-tenant") == "t 1"
    assert exchange.header("user-agent") == "mine"
    assert exchange.header("authorization") == "Bearer s3cr3t"
    assert exchange.header("webhook-signature") is None


async def test_a_registered_webhook_is_called_as_the_operator_configured_it():
    async with upstream(whole({"ok": True})) as peer:
        entry = RegisteredTool(
            "lookup", url=peer.url, secret="signing", auth_headers={"authorization": "token"}
        )
        async with tools(entry) as registry:
            tool = registry.resolve(Tool(name="lookup", registered=RegisteredSource()), "tool")
            outcome = await run(tool)

    assert outcome == ToolOutcome('{"ok": true}')
    assert peer.exchanges[0].header("authorization") == "Bearer s3cr3t"
    assert (peer.exchanges[0].header("webhook-signature") or "").startswith("v1,")


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (reply(b'{"a": [1, 2]}', content_type="application/json"), '{"a": [1, 2]}'),
        (reply(b"12", 201), "12"),
        (reply("sch\u00f6n".encode(), content_type="text/plain; charset=utf-8"), "sch\u00f6n"),
        (reply(b"sch\xf6n", content_type="text/plain; charset=ISO-8859-1"), "sch\u00f6n"),
        (reply(b"sch\xf6n"), "sch\ufffdn"),
        (reply(b"ok", content_type="text/plain; charset=rot13"), "ok"),
        (reply(b"ok", content_type="!"), "ok"),
        (reply(b""), ""),
        ([b"HTTP/1.1 204 X\r\n\r\n"], ""),
        (reply(b"a" * MAX_REPLY_BYTES), "a" * MAX_REPLY_BYTES),
    ],
    ids=range(10),
)
async def test_a_good_status_makes_the_body_the_result(steps, text):
    outcome, _ = await called(steps)

    assert outcome == ToolOutcome(text)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_of_a_bad_status_the_model_learns_no_more_than_the_number(status):
    outcome, peer = await called(reply(b"psst: internal", status))

    assert outcome == ToolOutcome(f"the tool answered with status {status}", is_error=True)
    assert len(peer.exchanges) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status):
    async with upstream(whole({})) as inside:
        head = f"HTTP/1.1 {status} X\r\nlocation: {inside.url}/secret\r\ncontent-length: 0\r\n\r\n"
        outcome, _ = await called([head.encode()])

    assert outcome == ToolOutcome(
        f"the tool answered with a redirect ({status}), which is not followed", is_error=True
    )
    assert inside.exchanges == []


async def test_what_is_no_text_is_no_result():
    outcome, _ = await called(reply(b"\x89PNG", content_type="image/png"))

    assert outcome.is_error
    assert "image/png" in outcome.text


LOST: Final = "the answer of the tool was lost ({}); the call may have had its effect"


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([Reset()], "BROKEN"),
        ([b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhalf", Reset()], "BROKEN"),
        ([b"no http\r\n\r\n"], "BROKEN"),
        ([Hang()], "TIMEOUT"),
        ([b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n", Hang()], "TIMEOUT"),
        ([b"HTTP/1.1 200 X\r\n", *[b"a: b\r\n", Pause(0.02)] * 10_000], "TIMEOUT"),
        ([b"HTTP/1.1 200 X\r\ncontent-length: 1073741824\r\n\r\n", *MANY_BYTES], "TOO_LARGE"),
        ([b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n", *MANY_BYTES], "TOO_LARGE"),
        ([b"HTTP/1.1 200 X\r\n", *MANY_BYTES], "TOO_LARGE"),
    ],
    ids=[
        "reset", "cut off", "no HTTP", "silent", "silent body", "drips", "1 GiB told", "1 GiB", "head"
    ],
)  # fmt: skip
async def test_a_lost_answer_may_have_had_its_effect(steps, reason):
    began_s = time.monotonic()
    outcome, peer = await called(steps, for_s=0.3)

    assert outcome == ToolOutcome(LOST.format(reason), is_error=True, is_unknown=True)
    assert time.monotonic() - began_s < 5
    assert len(peer.exchanges) == 1


async def test_nobody_there_means_that_nothing_happened():
    async with upstream(whole({})) as gone:
        url = gone.url
    async with tools() as registry:
        outcome = await run(webhook(registry, url))

    assert outcome == ToolOutcome("the tool could not be reached (CONNECT_FAILED)", is_error=True)


async def test_a_certificate_of_somebody_else_means_that_nothing_was_sent():
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    seen = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    async with server, tools() as registry:
        outcome = await run(webhook(registry, f"https://127.0.0.1:{port}/"))

    assert outcome == ToolOutcome("the tool could not be reached (TLS_FAILED)", is_error=True)
    assert not any(seen)


async def _effects_of_lost_replies(calls: int, at_once: int) -> tuple[int, dict[str, int]]:
    """Replies that are lost after the effect, in all the ways there are."""
    effects: dict[str, int] = {}

    def effect(exchange: Exchange) -> list[Step]:
        call_id = exchange.header("webhook-id") or ""
        effects[call_id] = effects.get(call_id, 0) + 1
        ways: list[list[Step]] = [
            [Reset()],
            [b"HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\n{", Reset()],
            [b"HTTP/1.1 200 X\r\n", Reset()],
        ]
        return ways[len(effects) % len(ways)]

    unknown = 0
    gate = asyncio.Semaphore(at_once)
    async with upstream(effect) as peer, tools(at=peer) as registry:
        tool = webhook(registry, peer.url, secret_ref="signing")

        async def call(number: int) -> None:
            nonlocal unknown
            async with gate:
                outcome = await run(tool, context=ToolContext(f"call-{number}", "r"), for_s=30)
            unknown += outcome.is_error and outcome.is_unknown

        await asyncio.gather(*map(call, range(calls)))
    return unknown, effects


async def test_a_call_whose_reply_is_lost_has_its_effect_once():
    unknown, effects = await _effects_of_lost_replies(200, at_once=20)

    assert unknown == 200
    assert list(effects.values()) == [1] * 200


@pytest.mark.slow
async def test_ten_thousand_calls_whose_reply_is_lost_have_their_effect_once():
    unknown, effects = await _effects_of_lost_replies(10_000, at_once=50)

    assert unknown == 10_000
    assert list(effects.values()) == [1] * 10_000


async def _closing_times_s(calls: int, steps: list[Step]) -> list[float]:
    """How long after a cancel the tool saw its connection close."""
    times = []
    async with tools() as registry, upstream(steps) as peer:
        tool = webhook(registry, peer.url)
        for number in range(calls):
            task = asyncio.create_task(run(tool))
            async with asyncio.timeout(5):
                await _until(lambda: len(peer.exchanges) > number)  # noqa: B023
                await asyncio.sleep(0.002)
                cancelled_at_s = asyncio.get_running_loop().time()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await peer.exchanges[number].closed.wait()
            times.append((peer.exchanges[number].closed_at_s or 0.0) - cancelled_at_s)
    return sorted(times)


@pytest.mark.parametrize(
    "steps",
    [[Hang()], [b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhalf", Hang()]],
    ids=["before the answer", "within it"],
)
async def test_a_cancelled_call_closes_its_connection_at_once(steps):
    times_s = await _closing_times_s(11, steps)

    assert times_s[len(times_s) // 2] < 0.05


@pytest.mark.slow
async def test_99_in_100_cancelled_calls_close_their_connection_within_50_ms():
    times_s = await _closing_times_s(1_000, [Hang()])

    assert times_s[989] < 0.05


async def test_an_async_webhook_is_acknowledged_before_it_answers():
    answer = asyncio.Event()

    async def script(_: Exchange) -> list[Step]:
        await answer.wait()
        return reply(b"")

    async with upstream(script) as peer, tools(at=peer) as registry:
        tool = webhook(registry, peer.url, response_mode=ASYNC, async_ack="on its way")
        outcome = await run(tool)
        await _until(lambda: len(peer.exchanges) == 1)
        answer.set()

    assert outcome == ToolOutcome("on its way")


async def test_closing_waits_for_what_is_under_way():
    failures: list[tuple[str, str]] = []

    def report(name: str, reason: str) -> None:
        failures.append((name, reason))

    async with upstream([Pause(0.2), *reply(b"", 500)]) as peer:
        async with tools(report=report) as registry:
            outcome = await run(webhook(registry, peer.url, response_mode=ASYNC))

        assert outcome == ToolOutcome(DEFAULT_ACK)
        assert failures == [("lookup", "the tool answered with status 500")]


async def test_an_async_call_outlives_its_request_but_not_its_own_time():
    failures: list[tuple[str, str]] = []

    def report(name: str, reason: str) -> None:
        failures.append((name, reason))

    async with upstream([Hang()]) as peer, tools(report=report) as registry:
        tool = webhook(registry, peer.url, response_mode=ASYNC, timeout=Duration(nanos=300_000_000))
        await run(tool, for_s=0.01)
        await _until(lambda: failures != [])

    assert failures == [("lookup", LOST.format("TIMEOUT"))]


async def test_only_so_many_calls_go_on_in_the_background():
    deliveries = Deliveries(close_s=0.05)
    release = asyncio.Event()

    async def deliver() -> ToolOutcome:
        await release.wait()
        return ToolOutcome("")

    started = [deliveries.start("t", deliver) for _ in range(MAX_BACKGROUND + 2)]

    assert started == [True] * MAX_BACKGROUND + [False] * 2
    await deliveries.close()
    assert not deliveries.start("t", deliver)


async def test_http_get_gives_the_document():
    async with upstream(reply(b"<p>hi</p>", content_type="text/html")) as peer:
        host = peer.url.removeprefix("http://")
        async with tools(
            RegisteredTool("fetch", builtin="http_get", config={"hosts": [host]})
        ) as registry:
            asked = Tool(name="t", builtin=BuiltinSource(name="http_get"))
            tool = registry.resolve(asked, "tool")
            outcome = await run(tool, json.dumps({"url": f"{peer.url}/doc?a=b"}))

    assert outcome == ToolOutcome("<p>hi</p>")
    assert peer.exchanges[0].head.startswith("GET /doc?a=b HTTP/1.1\r\n")


async def test_http_get_follows_no_redirect():
    async with upstream(whole({})) as inside:
        head = f"HTTP/1.1 302 X\r\nlocation: {inside.url}\r\ncontent-length: 0\r\n\r\n".encode()
        async with upstream([head]) as peer:
            host = peer.url.removeprefix("http://")
            entry = RegisteredTool("fetch", builtin="http_get", config={"hosts": [host]})
            async with tools(entry) as registry:
                tool = registry.resolve(Tool(name="fetch", registered=RegisteredSource()), "tool")
                outcome = await run(tool, json.dumps({"url": peer.url}))

    assert outcome.text == "the server answered with a redirect (302), which is not followed"
    assert inside.exchanges == []


async def _until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
