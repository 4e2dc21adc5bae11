"""Speko's official SDK, both its clients, over both edges: all of them read the same.

The SDK brings a whole telephone along, so it has an environment of its own; `drive_speko` runs there.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.clients.gateway import EDGES, HERE, LIMIT_S, ROOT, need, run, shim
from tests.clients.script import ANSWERS, LINE_ENDS, TOOL_CALLS, piece, stream
from tests.support.accounts import desk, new_sqlite
from tests.support.service import model, provider, service
from tests.support.upstream import Exchange, Step, Upstream, finish, upstream, whole
from trunkline import user
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY: Final = "sk-a-key-of-these-tests"
WAYS: Final = ("sync", "async")
CALLERS: Final = tuple(f"{way}-{edge}" for way in WAYS for edge in EDGES)
# What each provider does, by the names of the scripts that the other SDKs are tested with. Of two that are allowed the
# first is asked first.
SCRIPTS: Final[Mapping[str, str]] = {
    "plain": "plain",
    "line-ends": "line-ends",
    "failing": "failing",
    "second": "plain",
    "tools": "tools",
    "conversation": "conversation",
    "options": "plain",
    "throttled": "throttled",
    "broken": "broken",
    "broken-streamed": "broken",
    "early-close": "early-close",
    "server-tools": "plain",
    "mixed": "plain",
    "hops": "plain",
    "failed-tool": "plain",
}
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# What the models of two cases call, until they see results.
SERVER_CALLS: Final = {
    "server-tools": [
        ("c1", "get_weather", '{"city": "Bern"}'),
        ("c2", "look_up", "{}"),
        ("c3", "calculate", '{"expression": "6 * 7"}'),
    ],
    "mixed": [("c1", "get_weather", '{"city": "Bern"}'), ("c2", "look_up", "{}")],
    "failed-tool": [("c1", "get_weather", '{"city": "Bern"}')],
}
HOPS: Final = 2


@dataclass
class Speko:
    """A running service, its upstream, its webhook, and both edges by name."""

    upstream: Upstream
    webhook: Upstream
    urls: Mapping[str, str]

    def exchanges(self, case: str, caller: str) -> list[Exchange]:
        """What a provider was asked, in order."""
        return [e for e in self.upstream.exchanges if e.json["model"] == f"{case}-{caller}"]


def scripted(exchange: Exchange) -> Sequence[Step]:
    """By the provider, which has one model of its own name."""
    way, edge = exchange.json["model"].split("-")[-2:]
    case = exchange.json["model"].removesuffix(f"-{way}-{edge}")
    if case == "hops" and exchange.json.get("tool_choice") != "none":
        number = len(exchange.json["messages"])
        call = {"name": "calculate", "arguments": json.dumps({"expression": f"{number} + 1"})}
        return stream(
            piece({"tool_calls": [{"index": 0, "id": f"c{number}", "type": "function", "function": call}]}),
            finish("tool_calls"),
        )  # fmt: skip
    if case in SERVER_CALLS and exchange.json["messages"][-1]["role"] != "tool":
        called = [
            {"index": index, "id": key, "type": "function", "function": {"name": name, "arguments": arguments}}
            for index, (key, name, arguments) in enumerate(SERVER_CALLS[case])
        ]  # fmt: skip
        return stream(piece({"tool_calls": called}), finish("tool_calls"))
    return ANSWERS[SCRIPTS[case]](bool(exchange.json.get("stream")))


def hooked(exchange: Exchange) -> Sequence[Step]:
    """The webhook, which has one path too few."""
    return whole({}, 503) if exchange.path.endswith("/gone") else whole({"degrees": 21})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def speko() -> AsyncIterator[Speko]:
    names = [f"{case}-{caller}" for case in SCRIPTS for caller in CALLERS]
    accuracy = {"second": 0.1}
    async with (
        upstream(scripted) as running,
        upstream(hooked) as webhook,
        service(
            environment={"KEY": KEY, "HOOK": SECRET, "OTHER": "another secret"},
            providers=[provider(name, running.url) for name in names],
            models=[
                model(name, name, scores={"accuracy": accuracy.get(name.partition("-")[0], 0.9)})
                for name in names
            ],
            keys=[{"id": "tests", "key_env": "KEY"}],
            secrets={
                name: {"env": name.upper(), "hosts": [f"127.0.0.1:{webhook.port}"]}
                for name in ("hook", "other")
            },
            egress={"allowed_hosts": [f"127.0.0.1:{webhook.port}"]},
            tools=[
                {
                    "name": "look_up",
                    "description": "Looks it up.",
                    "parameters": {"type": "object"},
                    "url": f"{webhook.url}/registered",
                    "secret": "hook",
                }
            ],
        ) as started,
        shim(started.grpc_address) as shim_url,
    ):
        urls = {"local": f"http://{started.http_address}", "shim": shim_url}
        yield Speko(running, webhook, urls)


CALLS: Final = [
    {"id": key, "name": name, "args": "".join(pieces)} for key, name, pieces in TOOL_CALLS
]


# Of two turns.
TWICE: Final = {"prompt_tokens": 18, "completion_tokens": 8}


def done(case: str, caller: str, **more: Any) -> dict[str, Any]:
    """A result."""
    return {
        "text": "Hello",
        "provider": f"{case}-{caller}",
        "model": f"{case}-{caller}",
        "usage": {"prompt_tokens": 9, "completion_tokens": 4},
        "failover_count": 0,
        "scores_run_id": None,
        **more,
    }


def meta(case: str, caller: str) -> dict[str, Any]:
    """The first event."""
    return {
        "type": "meta",
        "provider": f"{case}-{caller}",
        "model": f"{case}-{caller}",
        "failover_count": 0,
        "total_failover_count": 0,
        "scores_run_id": None,
        "hop": 0,
    }


def failed(status: int, code: str, message: str, kind: str = "SpekoApiError", **more: Any) -> Any:
    """An error."""
    return {"class": kind, "status": status, "code": code, "message": message, **more}


def expected(caller: str) -> Mapping[str, Any]:
    """The results of all cases."""
    return {
        "complete": done("plain", caller, tool_calls=None),
        "complete_stream": [
            meta("plain", caller),
            {"type": "delta", "text": "Hello"},
            {"type": "done", **done("plain", caller)},
        ],
        "line_ends": [LINE_ENDS, LINE_ENDS],
        "failover": done("second", caller, failover_count=1, tool_calls=None),
        "pinned_model": done("plain", caller, tool_calls=None),
        "tools": done("tools", caller, text="", tool_calls=CALLS),
        "tools_streamed": [
            meta("tools", caller),
            *({"type": "tool_call", **call} for call in CALLS),
            {"type": "done", **done("tools", caller, text="", tool_calls=CALLS)},
        ],
        "conversation": "It is noon and sunny.",
        "options": "Hello",
        "wrong_key": failed(401, "AUTH_ERROR", "missing or unknown API key", "SpekoAuthError"),
        "bad_request": failed(400, "VALIDATION_ERROR", "temperature: 0 to 2"),
        "throttled": failed(
            429,
            "RATE_LIMITED",
            "all providers are rate limited",
            "SpekoRateLimitError",
            retry_after=7,
        ),
        "failing": failed(
            502,
            "COMPLETE_FAILED",
            f"all providers failed: failing-{caller}/failing-{caller}: provider credentials rejected",
        ),
        "nobody": ["SpekoApiError", 400, "VALIDATION_ERROR"],
        "integration": failed(
            400,
            "VALIDATION_ERROR",
            "tools[0].source.kind: 'get_weather': integrations are not served here",
        ),
        "broken": failed(200, "STREAM_ERROR", "the provider's stream broke off"),
        "broken_streamed": [
            meta("broken-streamed", caller),
            {"type": "delta", "text": "Hel"},
            {
                "type": "error",
                "error": "the provider's stream broke off",
                "code": "STREAM_ERROR",
            },
        ],
        "early_close": "Hel",
        "server_tools": [
            sorted([name, s] for _, name, _ in SERVER_CALLS["server-tools"] for s in ("started", "completed")),
            [
                meta("server-tools", caller),
                {**meta("server-tools", caller), "hop": 1},
                {"type": "delta", "text": "Hello"},
                {"type": "done", **done("server-tools", caller, usage=TWICE)},
            ],
        ],
        "hops": [
            ["started", "completed"] * HOPS,
            {"type": "done", **done("hops", caller, usage={"prompt_tokens": 27, "completion_tokens": 12})},
        ],
        "failed_tool": [["started", "failed"], "Hello"],
        "mixed": [[["get_weather", '{"city": "Bern"}']], "Hello"],
        "unknown_secret": failed(
            400,
            "VALIDATION_ERROR",
            "tools[0].source.secretRef: names no secret of this server",
        ),
    }  # fmt: skip


CASES: Final = tuple(expected(""))


async def drive(
    key: str, webhook: str, urls: Mapping[str, str], cases: Sequence[str]
) -> Mapping[str, Mapping[str, Any]]:
    """The SDK's results, by client and edge. One process for all: it takes a second to start."""
    python = need(ROOT / ".venv-speko/bin/python", "make setup-clients")
    edges = ",".join(f"{edge}={url}" for edge, url in urls.items())
    program = [python, "-W", "error", str(HERE / "drive_speko.py")]
    code, out, err = await run(*program, key, webhook, edges, *cases)
    assert code == 0, err.decode()
    found: Mapping[str, Mapping[str, Any]] = json.loads(out)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driven(speko: Speko, no_chance: None) -> Mapping[str, Mapping[str, Any]]:
    """What all callers found."""
    return await drive(KEY, f"{speko.webhook.url}/weather", speko.urls, CASES)


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest) -> str:
    """One client over one edge."""
    name: str = request.param
    return name


@pytest.fixture
def results(driven: Mapping[str, Mapping[str, Any]], caller: str) -> Mapping[str, Any]:
    """Of one caller."""
    return driven[caller]


@pytest.mark.parametrize("case", CASES)
async def test_both_clients_read_every_case_alike(results, caller, case):
    assert results[case] == expected(caller)[case]


async def test_the_upstream_is_asked_what_the_sdk_was_asked(speko, results, caller):
    assert results["options"] == "Hello"

    (asked,) = [exchange.json for exchange in speko.exchanges("options", caller)]
    (turn,) = [exchange.json for exchange in speko.exchanges("conversation", caller)]

    function = {
        "name": "get_weather",
        "description": "Finds it.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
    tools = [{"type": "function", "function": function}]
    assert asked == {
        "model": f"options-{caller}",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say hello."},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_completion_tokens": 100,
        "tools": tools,
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
    }
    results_of_tools = [m["content"] for m in turn["messages"] if m["role"] == "tool"]
    assert len(results_of_tools) == 2
    assert "no such city" in results_of_tools[0]
    assert results_of_tools[1] == "rain"


async def test_a_stream_that_is_left_early_closes_the_upstream(speko, results, caller):
    assert results["early_close"] == "Hel"

    (exchange,) = speko.exchanges("early-close", caller)
    async with asyncio.timeout(LIMIT_S):
        await exchange.closed.wait()


async def test_the_webhook_is_called_as_it_was_described(speko, driven):
    assert all(len(found["server_tools"]) == 2 for found in driven.values())

    described = [e for e in speko.webhook.exchanges if e.path == "/weather"]
    registered = [e for e in speko.webhook.exchanges if e.path == "/registered"]

    assert len(described) == len(CALLERS)
    for exchange in described:
        assert exchange.header("x-shop") == "7"
        assert exchange.header("x-key") == "another secret"
        assert (exchange.header("webhook-signature") or "").startswith("v1,")
    assert len(registered) == 2 * len(CALLERS), "once for each turn that called it"


async def test_the_models_turns_are_no_more_than_the_sdk_asked_for(speko, results, caller):
    assert results["hops"][1]["text"] == "Hello"

    choices = [exchange.json.get("tool_choice") for exchange in speko.exchanges("hops", caller)]

    assert choices == [None] * HOPS + ["none"]


async def test_a_mixed_turn_goes_on_with_the_results_of_both_tools(speko, results, caller):
    assert results["mixed"][1] == "Hello"

    first, second = (exchange.json["messages"] for exchange in speko.exchanges("mixed", caller))

    told = {m["tool_call_id"]: m["content"] for m in second if m["role"] == "tool"}
    assert [m["role"] for m in first] == ["user"]
    assert told["c1"] == "rain"
    assert "21" in told["c2"]


# Accounts

ACCOUNT_CASES: Final = ("balance", "ledger", "whole_ledger", "usage", "wrong_questions")
GRANT_NANOS: Final = 5_000_000_000
TIME: Final = re.compile(r"2\d{3}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spent(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Any]]:
    """What all callers find of an organisation that was given 5 dollars, and asked once."""
    url = new_sqlite(tmp_path_factory.mktemp("accounts"))
    async with (
        upstream(lambda exchange: ANSWERS["plain"](bool(exchange.json.get("stream")))) as asked,
        desk(url, asked.url) as running,
        shim(running.service.grpc_address) as shim_url,
    ):
        await running.grant(GRANT_NANOS)
        key = await running.new_key(plan="prepaid")
        spec = CompletionSpec(model="m", messages=[user("Say hello.")])
        await CompletionServiceStub(running.channel).CompleteUnary(
            CompleteUnaryRequest(spec=spec), metadata=key
        )
        urls = {"local": f"http://{running.service.http_address}", "shim": shim_url}
        secret = key[0][1].removeprefix("Bearer ")
        return await drive(secret, "", urls, ACCOUNT_CASES)


@pytest.fixture
def account(spent: Mapping[str, Mapping[str, Any]], caller: str) -> Mapping[str, Any]:
    """Of one caller."""
    return spent[caller]


async def test_a_balance_is_what_is_left(account):
    balance = account["balance"]

    assert TIME.fullmatch(balance.pop("updated_at"))
    # 9 tokens at 1 dollar a million, and 4 at 2.
    assert balance == {"balance_usd": 4.999983, "currency": "USD"}


async def test_a_ledger_is_read_page_by_page(account):
    (debit,), (grant,) = account["ledger"]

    assert all(TIME.fullmatch(entry.pop("created_at")) for entry in (debit, grant))
    unknown = {"metric": None, "provider": None, "session_id": None}
    assert debit == {"id": "acme-2", "kind": "debit", "amount_micro_usd": "-17", **unknown}
    assert grant == {"id": "acme-1", "kind": "grant", "amount_micro_usd": "5000000", **unknown}
    assert account["whole_ledger"] == [["acme-2", "acme-1"], None]


async def test_usage_is_summed_up_by_provider(account):
    this_month, yesterday, before = account["usage"]

    row = {
        "provider": "a",
        "metric": "tokens",
        "key_source": "MANAGED",
        "charge_kind": "add_on",
        "quantity": 13,
        "cost": 0.000017,
    }
    summary = {
        "total_sessions": 1,
        "total_minutes": 0,
        "total_cost": 0.000017,
        "minutes_cost": 0,
        "minutes_billed_seconds": 0,
        "add_on_cost": 0.000017,
        "breakdown": [row],
        "balance_usd": 4.999983,
        "currency": "USD",
    }
    assert this_month == yesterday == summary
    nothing = {"total_sessions": 0, "total_cost": 0, "add_on_cost": 0, "breakdown": []}
    assert before == {**summary, **nothing}


async def test_what_can_not_be_asked_is_named(account):
    date = "must be an ISO 8601 date, or a date and a time"
    assert account["wrong_questions"] == [
        failed(400, "VALIDATION_ERROR", text)
        for text in (
            "limit: must be a whole number, 1 to 1000",
            "cursor: is none of ours",
            f"from: {date}",
            "to: must be after from",
        )
    ]
