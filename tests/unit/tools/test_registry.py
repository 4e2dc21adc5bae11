"""What runs which tool, and how a request is told that nothing does."""

import base64
import dataclasses
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from trunkline.v1.completion_spec_pb2 import (
    BuiltinSource,
    InlineSource,
    IntegrationSource,
    McpSource,
    RegisteredSource,
    Tool,
    WebhookResponseMode,
    WebhookSource,
)
from trunkline_server.core.errors import InvalidRequest, NotSupported
from trunkline_server.core.tools import ToolContext, ToolOutcome
from trunkline_server.core.validation import schema_problem
from trunkline_server.tools.builtin import BUILTINS, DEFAULT_PIECE_CHARS, MAX_PIECE_CHARS
from trunkline_server.tools.egress import Egress
from trunkline_server.tools.registry import (
    RegisteredMcpServer,
    RegisteredTool,
    ToolRegistry,
    UnusableTools,
)
from trunkline_server.tools.replies import MAX_RESULT_CHARS, cut
from trunkline_server.tools.webhook import MAX_ACK_CHARS, MAX_HEADERS, signing_key, webhook_id_of

WHERE = "spec.tool_options.tools[0]"
KEY = base64.b64encode(bytes(range(32))).decode()
SECRETS = {
    "signing": f"whsec_{KEY}",
    "plain": KEY.rstrip("="),
    "short": "c2hvcnQ=",
    "no-base64": "this is none!" * 4,
    "token": "Bearer abc",
    "with-newline": "a\nb",
    "bound": KEY,
    "unbound": KEY,
}
BOUND = {
    **{name: ["hooks.example"] for name in SECRETS if name != "unbound"},
    "bound": ["api.example", "hooks.example:8443"],
}
NOW_S = datetime(2026, 11, 20, 9, 30, tzinfo=UTC).timestamp()
EGRESS = Egress(["inside.test"])
CONTEXT = ToolContext(call_id="call-1", request_id="req-1")


def registry(*tools: RegisteredTool, mcp: tuple[RegisteredMcpServer, ...] = ()) -> ToolRegistry:
    """One that resolves names to nothing."""
    return ToolRegistry(tools, mcp, SECRETS, EGRESS, now=lambda: NOW_S, secret_hosts=BOUND)


def webhook(**fields: Any) -> Tool:
    """A good tool but for these fields of its source."""
    return Tool(name="t", webhook=WebhookSource(**{"url": "https://hooks.example/t", **fields}))


async def run(tools: ToolRegistry, tool: Tool, **arguments: Any) -> ToolOutcome:
    """Run a tool once."""
    runner = tools.resolve(tool, WHERE).runner
    return await runner.run(json.dumps(arguments), CONTEXT, math.inf)


def builtin(name: str, config_json: str = "") -> Tool:
    """A request's tool that is a builtin."""
    return Tool(name="t", builtin=BuiltinSource(name=name, config_json=config_json))


REFUSED = [
    (webhook(url="http://hooks.example/t"), "webhook.url", "must be an https URL"),
    (webhook(url="https://hooks.example:22/t"), "webhook.url", "must be an https URL"),
    (webhook(url="https://a@hooks.example/"), "webhook.url", "must be an https URL"),
    (webhook(url="https://127.0.0.1/t"), "webhook.url", "leads to an address that is not public"),
    (webhook(url="https://localhost/t"), "webhook.url", "leads to an address that is not public"),
    (webhook(secret_ref="unknown"), "webhook.secret_ref", "names no secret of this server"),
    (webhook(secret_ref="short"), "webhook.secret_ref", "names a secret that is shorter than 24 b"),
    (webhook(secret_ref="no-base64"), "webhook.secret_ref", "names a secret that is no base64"),
    (webhook(headers={"host": "a"}), "webhook.headers['host']", "is set by the gateway itself"),
    (
        webhook(headers={"Webhook-Id": "a"}),
        "webhook.headers['Webhook-Id']",
        "is set by the gateway",
    ),
    (webhook(headers={"a b": "a"}), "webhook.headers['a b']", "is no header name"),
    (webhook(headers={"a": "b\r\nc: d"}), "webhook.headers['a']", "needs a value of 1 to"),
    (webhook(headers={"a": ""}), "webhook.headers['a']", "needs a value of 1 to"),
    (
        webhook(headers={f"x-{n}": "1" for n in range(MAX_HEADERS + 1)}),
        "webhook.headers",
        f"are more than {MAX_HEADERS}",
    ),
    (
        webhook(auth_header_secret_refs={"authorization": "unknown"}),
        "webhook.auth_header_secret_refs['authorization']",
        "names no secret of this server",
    ),
    (
        webhook(auth_header_secret_refs={"authorization": "with-newline"}),
        "webhook.auth_header_secret_refs['authorization']",
        "needs a value of 1 to",
    ),
    (webhook(secret_ref="bound"), "webhook.secret_ref", "names a secret that may not go to this"),
    (webhook(secret_ref="unbound"), "webhook.secret_ref", "names a secret that has no hosts"),
    (
        webhook(auth_header_secret_refs={"x": "unbound"}),
        "webhook.auth_header_secret_refs['x']",
        "names a secret that has no hosts",
    ),
    (
        webhook(auth_header_secret_refs={"x": "bound"}),
        "webhook.auth_header_secret_refs['x']",
        "names a secret that may not go to this host",
    ),
    (webhook(timeout=Duration(seconds=61)), "webhook.timeout", "more than 0 s and at most 60 s"),
    (webhook(timeout=Duration()), "webhook.timeout", "more than 0 s and at most 60 s"),
    (webhook(response_mode=9), "webhook.response_mode", "unknown value"),
    (
        webhook(
            response_mode=WebhookResponseMode.WEBHOOK_RESPONSE_MODE_ASYNC,
            async_ack="a" * (MAX_ACK_CHARS + 1),
        ),
        "webhook.async_ack",
        "has more than",
    ),
    (builtin("calculater"), "builtin.name", "names no builtin of this server; did you mean 'calc"),
    (builtin("calculator", "{"), "builtin.config_json", "must be a JSON object"),
    (builtin("calculator", "[]"), "builtin.config_json", "must be a JSON object"),
    (builtin("calculator", '{"a": 1}'), "builtin.config_json", "must be empty"),
    (builtin("http_get"), "builtin.name", "is not available: the operator allows it no host"),
    (Tool(name="t", mcp=McpSource(server="x", tool="y")), "mcp.server", "names no MCP server of"),
    (Tool(name="t", registered=RegisteredSource()), "name", "names no registered tool of this"),
]


@pytest.mark.parametrize(
    ("tool", "path", "description"),
    REFUSED,
    ids=[f"{n}-{path}" for n, (_, path, _) in enumerate(REFUSED)],
)
def test_a_tool_that_nothing_runs_is_refused_by_its_field(tool, path, description):
    with pytest.raises(InvalidRequest) as raised:
        registry().resolve(tool, WHERE)

    (violation,) = raised.value.violations
    assert violation.field == f"{WHERE}.{path}"
    assert violation.description.startswith(description)
    assert not any(secret in str(raised.value) for secret in SECRETS.values())


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        (Tool(name="t", integration=IntegrationSource(app_key="a")), f"{WHERE}.integration"),
        (Tool(name="t", inline=InlineSource()), f"{WHERE}.inline"),
    ],
)
def test_a_kind_of_tool_that_is_never_run_is_refused_by_name(tool, path):
    with pytest.raises(NotSupported, match="is not served") as raised:
        registry().resolve(tool, WHERE)

    assert raised.value.metadata == {"field": path}


def test_a_webhook_is_run_as_the_request_says():
    tool = webhook(
        secret_ref="signing",
        headers={"x-a": "1"},
        auth_header_secret_refs={"authorization": "token"},
        timeout=Duration(seconds=2, nanos=500_000_000),
        response_mode=WebhookResponseMode.WEBHOOK_RESPONSE_MODE_ASYNC,
    )
    tool.idempotent = True

    found = registry().resolve(tool, WHERE)

    assert found.tool == tool
    assert (found.timeout_s, found.is_idempotent, found.is_exclusive) == (2.5, True, False)


def test_a_webhook_has_ten_seconds_and_one_try_unless_told_otherwise():
    found = registry().resolve(webhook(), WHERE)

    assert (found.timeout_s, found.is_idempotent) == (10.0, False)


@pytest.mark.parametrize("url", ["https://api.example/a", "https://hooks.example:8443/"])
def test_a_secret_may_go_where_its_operator_says(url):
    tool = webhook(url=url, secret_ref="bound", auth_header_secret_refs={"x": "bound"})

    assert registry().resolve(tool, WHERE).tool == tool


def test_a_secret_that_may_go_to_what_is_no_host_stops_the_start():
    with pytest.raises(UnusableTools, match=r"secrets: 'bound': hosts must be HOST or HOST:PORT"):
        ToolRegistry(
            (), (), SECRETS, EGRESS, now=lambda: NOW_S, secret_hosts={"bound": ["https://a/"]}
        )


def test_an_operators_hosts_may_be_named_by_requests():
    tool = webhook(url="http://inside.test:9000/t")

    assert registry().resolve(tool, WHERE).tool == tool


def test_a_registered_tool_is_what_the_operator_said():
    tools = registry(
        RegisteredTool(
            "lookup",
            "Looks up.",
            {"type": "object"},
            url="https://hooks.example/t",
            secret="plain",
            timeout_s=3,
            idempotent=True,
            exclusive=True,
        )
    )

    found = tools.resolve(Tool(name="lookup", registered=RegisteredSource()), WHERE)

    assert found.tool.description == "Looks up."
    assert json.loads(found.tool.parameters_schema_json) == {"type": "object"}
    assert (found.timeout_s, found.is_idempotent, found.is_exclusive) == (3, True, True)


def test_what_a_request_says_of_a_registered_tool_wins_but_for_its_risks():
    tools = registry(
        RegisteredTool("lookup", "Theirs.", {"type": "object"}, url="https://hooks.example/t")
    )
    asked = Tool(
        name="lookup",
        description="Mine.",
        parameters_schema_json="{}",
        idempotent=True,
        registered=RegisteredSource(),
    )

    found = tools.resolve(asked, WHERE)

    assert (found.tool.description, found.tool.parameters_schema_json) == ("Mine.", "{}")
    assert not found.is_idempotent


def test_an_unknown_registered_tool_is_told_with_the_nearest_name():
    tools = registry(RegisteredTool("get_weather", builtin="current_time"))

    with pytest.raises(InvalidRequest, match="did you mean 'get_weather'"):
        tools.resolve(Tool(name="get_wether", registered=RegisteredSource()), WHERE)


MISCONFIGURED = [
    (RegisteredTool("t"), "needs one of url, builtin and mcp_server"),
    (
        RegisteredTool("t", parameters={"type": "number of days"}, url="https://a.example"),
        "parameters is no JSON Schema (at /type)",
    ),
    (
        RegisteredTool("t", parameters={"$ref": "#/$defs/gone"}, url="https://a.example"),
        "parameters refers to what is not in it",
    ),
    (
        RegisteredTool("t", parameters={"anyOf": [{"$ref": "#"}]}, url="https://a.example"),
        "parameters takes too long to check anything against",
    ),
    (
        RegisteredTool("t", url="https://a.example", builtin="calculator"),
        "needs one of url, builtin and mcp_server",
    ),
    (RegisteredTool("t", url="ftp://a.example"), "url must be an https URL on a usual port"),
    (RegisteredTool("t", url="https://a.example", secret="none"), "secret names no secret of"),
    (RegisteredTool("t", builtin="http_get"), 'config must be {"hosts": [...]}'),
    (
        RegisteredTool("t", builtin="http_get", config={"hosts": ["a b"]}),
        "config hosts must be HOST or HOST:PORT, each",
    ),
    (
        RegisteredTool("t", builtin="http_get", config={"hosts": []}),
        "config hosts must be a list of 1 to 256 hosts",
    ),
    (
        RegisteredTool("t", url="https://hooks.example/t", secret="bound"),
        "secret names a secret that may not go to this host",
    ),
    (RegisteredTool("t", builtin="nothing"), "builtin names no builtin of this server"),
    (RegisteredTool("t", mcp_server="m"), "mcp_server names no MCP server of this server"),
]


@pytest.mark.parametrize(
    ("tool", "problem"),
    MISCONFIGURED,
    ids=[f"{n}-{problem}" for n, (_, problem) in enumerate(MISCONFIGURED)],
)
def test_a_registered_tool_that_can_t_work_stops_the_start(tool, problem):
    with pytest.raises(UnusableTools) as raised:
        registry(tool, dataclasses.replace(tool, name="u"))

    assert [line.partition(": ")[0] for line in raised.value.problems] == ["tools", "tools"]
    assert raised.value.problems[0].startswith(f"tools: 't': {problem}")


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        (RegisteredMcpServer("m"), "needs either url or command"),
        (RegisteredMcpServer("m", "https://a.example", command=["a"]), "needs either url or comm"),
        (RegisteredMcpServer("m", "http://a.example"), "url must be an https URL on a usual port"),
        (RegisteredMcpServer("m", "http://10.0.0.1/mcp"), "url leads to an address that is not p"),
        (RegisteredMcpServer("m", "no url", allow_private=True), "url must be http(s)://HOST"),
        (RegisteredMcpServer("m", command=["a"], env={"A": "none"}), "env['A'] names no secret"),
        (
            RegisteredMcpServer("m", "https://a.example", {"a": "with-newline"}),
            "auth_headers['a'] needs a value",
        ),
    ],
)
def test_an_mcp_server_that_can_t_work_stops_the_start(server, problem):
    with pytest.raises(UnusableTools) as raised:
        registry(mcp=(server,))

    assert raised.value.problems[0].startswith(f"mcp_servers: 'm': {problem}")


@pytest.mark.parametrize("name", BUILTINS)
def test_a_builtin_brings_its_description_and_schema(name):
    tools = registry(RegisteredTool("t", builtin="http_get", config={"hosts": ["a.example"]}))

    found = tools.resolve(builtin(name), WHERE)

    assert len(found.tool.description) > 20
    assert schema_problem(found.tool.parameters_schema_json) == ""
    assert found.is_idempotent


async def test_the_calculator_calculates():
    assert await run(registry(), builtin("calculator"), expression="0.1+0.2") == ToolOutcome("0.3")


async def test_the_calculator_tells_what_it_did_not_understand():
    outcome = await run(registry(), builtin("calculator"), expression="1 +")

    assert outcome == ToolOutcome("a number is missing before the end", is_error=True)


@pytest.mark.parametrize(
    ("zone", "time", "weekday"),
    [
        ("UTC", "2026-11-20T09:30:00+00:00", "Friday"),
        ("Asia/Tokyo", "2026-11-20T18:30:00+09:00", "Friday"),
        ("Pacific/Auckland", "2026-11-20T22:30:00+13:00", "Friday"),
    ],
)
async def test_the_clock_knows_zones(zone, time, weekday):
    outcome = await run(registry(), builtin("current_time"), time_zone=zone)

    assert json.loads(outcome.text) == {"time": time, "weekday": weekday, "time_zone": zone}


async def test_the_clock_tells_utc_when_not_asked_for_a_zone():
    outcome = await run(registry(), builtin("current_time"))

    assert json.loads(outcome.text)["time"] == "2026-11-20T09:30:00+00:00"


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "../../etc/passwd", "Europe", "/etc", "\0", 7])
async def test_the_clock_refuses_what_is_no_zone(zone):
    outcome = await run(registry(), builtin("current_time"), time_zone=zone)

    assert outcome.is_error


LONG = "".join(chr(0x4E00 + i % 5000) for i in range(50_000))
KEPT = ToolContext("c", "r", results={"call_7": LONG})


async def read(**arguments: Any) -> ToolOutcome:
    """Read a kept result."""
    runner = registry().resolve(builtin("read_result"), WHERE).runner
    return await runner.run(json.dumps({"tool_call_id": "call_7", **arguments}), KEPT, math.inf)


async def test_a_result_can_be_read_to_its_end_piece_by_piece():
    whole, offset = "", 0
    while offset < len(LONG):
        head, _, piece = (await read(offset=offset, limit=MAX_PIECE_CHARS)).text.partition("\n")
        assert head == f"[characters {offset} to {offset + len(piece)} of {len(LONG)}]"
        assert len(f"{head}\n{piece}".encode()) <= 16 * 1024
        whole += piece
        offset += len(piece)

    assert whole == LONG


async def test_a_piece_is_as_long_as_asked():
    assert (await read(offset=10, limit=3)).text == f"[characters 10 to 13 of 50000]\n{LONG[10:13]}"


async def test_a_piece_has_a_usual_length():
    context = ToolContext("c", "r", results={"call_7": "a" * 50_000})
    runner = registry().resolve(builtin("read_result"), WHERE).runner

    outcome = await runner.run('{"tool_call_id": "call_7"}', context, math.inf)

    assert len(outcome.text.partition("\n")[2]) == DEFAULT_PIECE_CHARS


@pytest.mark.parametrize(
    "arguments",
    [
        {"tool_call_id": "other"},
        {"offset": 50_000},
        {"offset": -1},
        {"limit": 0},
        {"offset": "1"},
        {"limit": True},
    ],
)
async def test_what_is_not_there_can_t_be_read(arguments):
    assert (await read(**arguments)).is_error


@pytest.mark.parametrize("name", BUILTINS)
@pytest.mark.parametrize("arguments_json", ["", "null", "[]", "{", '{"expression": 1}', "[" * 9999])
async def test_a_builtin_survives_any_arguments(name, arguments_json):
    tools = registry(RegisteredTool("t", builtin="http_get", config={"hosts": ["a.example"]}))
    runner = tools.resolve(builtin(name), WHERE).runner

    outcome = await runner.run(arguments_json, CONTEXT, math.inf)

    assert outcome.is_error or name == "current_time"


HTTP_GET = RegisteredTool(
    "fetch", builtin="http_get", config={"hosts": ["Docs.Example", "b.example:8443"]}
)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "https://docs.example:8443/",
        "https://b.example/",
        "https://docs.example.evil.example/",
        "https://docs.example@evil.example/",
        "https://evil.example\\@docs.example/",
        "https://evil.example#docs.example",
        "file:///etc/passwd",
        "https://[::1]/",
        "docs.example",
        "",
    ],
)
async def test_http_get_asks_only_the_hosts_that_the_operator_allows(url):
    outcome = await run(registry(HTTP_GET), builtin("http_get"), url=url)

    assert outcome.is_error
    assert outcome.text == "this host is not allowed; allowed are b.example:8443, docs.example"


@pytest.mark.parametrize("host", ["evil.example", "docs.example:8443", "b.example"])
def test_a_request_can_t_allow_http_get_more_than_the_operator_did(host):
    with pytest.raises(InvalidRequest, match="names a host that the operator does not allow"):
        registry(HTTP_GET).resolve(builtin("http_get", json.dumps({"hosts": [host]})), WHERE)


async def test_a_request_can_allow_http_get_less_than_the_operator_did():
    tool = builtin("http_get", '{"hosts": ["b.example:8443"]}')

    outcome = await run(registry(HTTP_GET), tool, url="https://docs.example/")

    assert outcome.text == "this host is not allowed; allowed are b.example:8443"


def test_a_result_is_kept_up_to_a_size():
    whole = ToolOutcome("a" * MAX_RESULT_CHARS)
    longer = ToolOutcome("a" * MAX_RESULT_CHARS + "b", is_error=True)

    assert cut(whole) is whole
    assert cut(longer).text.removeprefix(whole.text) == (
        f"\n[cut: the result has {MAX_RESULT_CHARS + 1} characters, {MAX_RESULT_CHARS} are kept]"
    )
    assert cut(longer).is_error


def test_a_signing_secret_is_base64_with_its_prefix_or_without():
    assert signing_key(SECRETS["signing"]) == signing_key(SECRETS["plain"]) == bytes(range(32))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "!", "\u00fc"])
def test_a_signing_secret_that_could_be_guessed_is_refused(secret):
    with pytest.raises(ValueError, match=r"is (no base64|shorter than 24 bytes)"):
        signing_key(secret)


@pytest.mark.parametrize("call_id", ["", "a.b", "a b", "\u00e9", "a" * 256, "a\r\nb"])
def test_a_call_id_that_no_header_can_carry_has_a_stand_in(call_id):
    found = webhook_id_of(call_id)

    assert found == webhook_id_of(call_id) != webhook_id_of(call_id + "x")
    assert len(found) == 37
    assert found.isascii()
