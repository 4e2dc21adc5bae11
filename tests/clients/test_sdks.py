"""What users have: the official OpenAI SDKs, over both edges, all with the same results.

The newest Python SDK runs in this process, the newest 1.x in its own environment and the Node SDK in Node. Each runs
all cases of its `drive` program once for each edge; the tests look at the results and at what the upstream was sent.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.clients import drive
from tests.clients.gateway import EDGES, HERE, KEY, LIMIT_S, ROOT, Gateway, missing, need, run
from tests.clients.script import CASES, LINE_ENDS, LOGPROBS, TOOL_CALLS

pytestmark = pytest.mark.asyncio(loop_scope="module")

SDKS: Final = ("python", "openai-1x", "node")
USAGE: Final = [9, 4, 13]
CALLS: Final = [[key, "function", name, "".join(pieces)] for key, name, pieces in TOOL_CALLS]
HEADS: Final = [["chat.completion.chunk", "chatcmpl-"]]


def whole(*choices: dict[str, Any]) -> dict[str, Any]:
    """A response with these choices."""
    return {
        "object": "chat.completion",
        "id": "chatcmpl-",
        "choices": [
            {"index": index, "role": "assistant", "refusal": None, "calls": [], **choice}
            for index, choice in enumerate(choices)
        ],
        "usage": USAGE,
    }


def streamed(*choices: dict[str, Any], usages: tuple[list[int], ...] = ()) -> dict[str, Any]:
    """A stream of these choices: one role and one end each, one head for all chunks."""
    return {
        "heads": HEADS,
        "choices": [
            {"index": index, "roles": ["assistant"], "text": "", "calls": [], **choice}
            for index, choice in enumerate(choices)
        ],
        "usages": list(usages),
    }


def refused(name: str, status: int, kind: str, code: str | None, **more: Any) -> dict[str, Any]:
    """An error with a status."""
    return {
        "class": name, "status": status, "type": kind, "code": code, "param": None, "has_id": True, **more,
    }  # fmt: skip


INVALID: Final = "invalid_request_error"


def failing(caller: str) -> Mapping[str, Any]:
    """Nobody answered, and who that was."""
    message = f"all providers failed: {caller}/failing/{caller}: provider credentials rejected"
    return refused(
        "InternalServerError", 502, "server_error", "all_providers_failed", message=message
    )


def expected(caller: str) -> Mapping[str, Any]:
    """The results of all cases."""
    return {
        "plain": whole({"text": "Hello", "finish": "stop"}),
        "stream": streamed({"text": "Hello", "finish": ["stop"]}),
        "include_usage": streamed({"text": "Hello", "finish": ["stop"]}, usages=(USAGE,)),
        "tools": whole({"text": None, "calls": CALLS, "finish": "tool_calls"}),
        "tools_streamed": streamed({"calls": CALLS, "finish": ["tool_calls"]}),
        # The SDKs' helpers ask for no usage.
        "accumulated": {
            **whole({"text": "", "calls": CALLS, "finish": "tool_calls"}),
            "usage": None,
        },
        "conversation": whole({"text": "It is noon and sunny.", "finish": "stop"}),
        "structured": ["Bern", 146000],
        "choices": whole({"text": "Hello", "finish": "length"}, {"text": "Bye", "finish": "stop"}),
        "choices_streamed": streamed(
            {"text": "Hello", "finish": ["length"]}, {"text": "Bye", "finish": ["stop"]}
        ),
        "logprobs": list(LOGPROBS),
        "logprobs_streamed": list(LOGPROBS),
        "line_ends": LINE_ENDS,
        "line_ends_streamed": LINE_ENDS,
        "bad_parameter": refused(
            "BadRequestError", 400, INVALID, None, param="temperature", message="temperature: 0 to 2"
        ),
        "wrong_key": refused(
            "AuthenticationError", 401, "authentication_error", "invalid_api_key",
            message="missing or unknown API key",
        ),
        "unknown_model": refused(
            "NotFoundError", 404, INVALID, "model_not_found",
            message=f"no model, alias or route is called 'plian/{caller}'; did you mean 'plain/{caller}'?",
        ),
        "too_large": refused(
            "APIError", 413, INVALID, "payload_too_large", message="the body is larger than 33554432 bytes"
        ),
        "refused_upstream": refused(
            "BadRequestError", 400, INVALID, "upstream_rejected",
            message="the provider rejected the request as invalid",
        ),
        "throttled": {
            **refused(
                "RateLimitError", 429, "rate_limit_error", "rate_limit_exceeded",
                message="all providers are rate limited",
            ),
            "retry-after": "7",
        },
        "failing": failing(caller),
        "failing_streamed": failing(caller),
        "silent": refused(
            "InternalServerError", 504, "server_error", "timeout", message="no provider answered in time"
        ),
        "broken": {
            "text": "Hel",
            "class": "APIError",
            "code": "stream_interrupted",
            "param": None,
            "type": "server_error",
        },
        "early_close": "Hel",
        "models": sorted(f"{case}/{caller}" for case in CASES),
        "model": [f"plain/{caller}", "model", caller],
        "request_id": [f"asked-{caller}", "req_"],
    }  # fmt: skip


@pytest.fixture(scope="module", params=SDKS)
def sdk(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=EDGES)
def caller(request: pytest.FixtureRequest, sdk: str) -> str:
    """One SDK over one edge."""
    return f"{sdk}-{request.param}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(gateway: Gateway, sdk: str, caller: str, no_chance: None) -> Mapping[str, Any]:
    """Of all cases."""
    url = gateway.urls[caller.rpartition("-")[2]]
    if sdk == "python":
        async with asyncio.timeout(LIMIT_S):
            found = await asyncio.to_thread(drive.results, url, KEY, caller)
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]
    code, out, err = await run(*_program(sdk), url, KEY, caller)
    assert code == 0, err.decode()
    return json.loads(out)  # type: ignore[no-any-return]


def _program(sdk: str) -> list[str]:
    if sdk == "node":
        if not (HERE / "node/node_modules/openai").is_dir():
            missing("the Node SDK is not installed: make setup-clients")
        return [
            need("node", "install Node.js, then make setup-clients"),
            str(HERE / "node/drive.mjs"),
        ]
    python = need(ROOT / ".venv-openai-1x/bin/python", "make setup-clients")
    return [python, "-W", "error", str(HERE / "drive.py")]


@pytest.mark.parametrize("case", expected(""))
async def test_every_sdk_reads_every_case_alike(results, caller, case):
    assert results[case] == expected(caller)[case]


async def test_no_case_is_left_out(results):
    assert set(results) == set(expected(""))


async def test_what_failed_for_good_is_not_asked_for_again(gateway, results, caller):
    assert results["failing"] == failing(caller)

    assert len(gateway.exchanges(f"failing/{caller}")) == 2, "plain and streamed, once each"
    assert len(gateway.exchanges(f"silent/{caller}")) == 1
    assert len(gateway.exchanges(f"broken/{caller}")) == 1
    assert len(gateway.exchanges(f"throttled/{caller}")) == 1
    assert len(gateway.exchanges(f"limited/{caller}")) == 1


async def test_a_stream_that_is_left_early_closes_the_upstream(gateway, results, caller):
    assert results["early_close"] == "Hel"

    (exchange,) = gateway.exchanges(f"early-close/{caller}")
    async with asyncio.timeout(LIMIT_S):
        await exchange.closed.wait()


def _asked(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": list(drive.HELLO), **more}


async def test_the_upstream_is_asked_what_the_sdk_was_asked(gateway, results, caller):
    assert results["conversation"] == expected(caller)["conversation"]
    streams = {"stream": True, "stream_options": {"include_usage": True}}

    asked = {
        case: [exchange.json for exchange in gateway.exchanges(f"{case}/{caller}")]
        for case in ("tools", "conversation", "structured", "choices", "logprobs", "line-ends")
    }

    tools = {"tools": drive.TOOLS}
    assert asked["tools"] == [
        _asked(f"tools/{caller}", **tools, tool_choice="required"),
        _asked(f"tools/{caller}", **streams, **tools, parallel_tool_calls=True),
        _asked(f"tools/{caller}", **streams, **tools),
        _asked(f"tools/{caller}", **tools),
    ]
    calls = [
        {"id": key, "type": "function", "function": {"name": name, "arguments": "".join(pieces)}}
        for key, name, pieces in TOOL_CALLS
    ]
    turns = [
        *drive.HELLO,
        {"role": "assistant", "content": None, "tool_calls": calls},
        *(
            {"role": "tool", "tool_call_id": key, "content": f"{name}: fine"}
            for key, name, _ in TOOL_CALLS
        ),
    ]
    assert asked["conversation"] == [
        {**_asked(f"conversation/{caller}", **tools), "messages": turns}
    ]
    (structured,) = asked["structured"]
    assert structured["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "City",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {
                    "city": {"title": "City", "type": "string"},
                    "people": {"title": "People", "type": "integer"},
                },
                "required": ["city", "people"],
                "title": "City",
                "additionalProperties": False,
            },
        },
    }
    assert asked["choices"] == [
        _asked(f"choices/{caller}", n=2),
        _asked(f"choices/{caller}", n=2, **streams),
    ]
    assert asked["logprobs"] == [
        _asked(f"logprobs/{caller}", logprobs=True, top_logprobs=2),
        _asked(f"logprobs/{caller}", logprobs=True, top_logprobs=2, **streams),
    ]
    assert asked["line-ends"] == [
        _asked(f"line-ends/{caller}"), _asked(f"line-ends/{caller}", **streams),
    ]  # fmt: skip
