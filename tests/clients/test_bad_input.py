"""What no client should send: each gets the error of the table, all four fields, and no upstream hears of it."""

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import httpx
import pytest

from tests.clients.gateway import FREE, KEY
from tests.support.upstream import hello, message

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: Final = "/v1/chat/completions"
HELLO: Final = [{"role": "user", "content": "hi"}]
CALL: Final = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MIB: Final = 1024 * 1024


def invalid(
    message: str, param: str | None = None, code: str | None = None, status: int = 400
) -> tuple[int, Any]:
    """An error that blames the request."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return status, {"error": error}


def chat(**fields: Any) -> bytes:
    """A good request but for these fields."""
    return json.dumps({"model": FREE, "messages": HELLO, **fields}).encode()


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    """A tool."""
    return {"type": "function", "function": {"name": name, **more}}


def schema(value: Any) -> dict[str, Any]:
    """A response format."""
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": value}}


def nested(levels: int) -> str:
    """Arrays within arrays."""
    return "[" * levels + "]" * levels


NO_JSON: Final = invalid("the body is no valid JSON")
TOO_DEEP: Final = invalid("the body nests deeper than 64 levels, or holds too many values")

# By name: a body, and the answer to it.
BODIES: Final[Mapping[str, tuple[bytes, tuple[int, Any]]]] = {
    # No JSON
    "nothing": (b"", NO_JSON),
    "half an object": (b'{"model":"m","messages":[', NO_JSON),
    "something after it": (chat() + b"x", NO_JSON),
    "single quotes": (b"{'model':'m'}", NO_JSON),
    "no UTF-8": (b'{"model":"m\xff"}', invalid("the body is no valid UTF-8")),
    "UTF-16": (chat().decode().encode("utf-16"), invalid("the body is no valid UTF-8")),
    "a byte order mark": (b"\xef\xbb\xbf" + chat(), NO_JSON),
    "NaN": (chat(temperature=float("nan")), NO_JSON),
    "infinity": (chat(temperature=float("inf")), NO_JSON),
    "10,000 levels": (b'{"model":"m","messages":' + nested(10_000).encode() + b"}", TOO_DEEP),
    "10,000 open levels": (b"[" * 10_000, TOO_DEEP),
    "10,000 levels in what is forwarded": (
        chat()[:-1] + b',"x":' + nested(10_000).encode() + b"}",
        TOO_DEEP,
    ),
    # Wrong types
    "a list": (b"[]", invalid("Expected `object`, got `array`")),
    "null": (b"null", invalid("Expected `object`, got `null`")),
    "no messages": (
        json.dumps({"model": FREE}).encode(),
        invalid("Object missing required field `messages`", "messages"),
    ),
    "messages: a string": (
        chat(messages="hi"),
        invalid("Expected `array`, got `str`", "messages"),
    ),
    "messages: null": (chat(messages=None), invalid("Expected `array`, got `null`", "messages")),
    "a message: a string": (
        chat(messages=["hi"]),
        invalid("Expected `object`, got `str`", "messages[0]"),
    ),
    "content: a number": (
        chat(messages=[{"role": "user", "content": 5}]),
        invalid("Expected `str | array | null`, got `int`", "messages[0].content"),
    ),
    "model: a number": (chat(model=5), invalid("Expected `str | null`, got `int`", "model")),
    "temperature: a string": (
        chat(temperature="hot"),
        invalid("Expected `float | null`, got `str`", "temperature"),
    ),
    "stream: a string": (
        chat(stream="yes"),
        invalid("Expected `bool | null`, got `str`", "stream"),
    ),
    "stop: an object": (
        chat(stop={}),
        invalid("Expected `str | array | null`, got `object`", "stop"),
    ),
    "max_tokens: a fraction": (
        chat(max_tokens=1.5),
        invalid("Expected `int | null`, got `float`", "max_tokens"),
    ),
    "logit_bias: a list": (
        chat(logit_bias=[]),
        invalid("Expected `object | null`, got `array`", "logit_bias"),
    ),
    "tools: a string": (chat(tools="f"), invalid("Expected `array | null`, got `str`", "tools")),
    # Values out of range
    "n: 10**12": (
        chat(n=10**12),
        invalid("Expected `int` <= 2147483647", "n"),
    ),
    "n: 10**30": (chat(n=10**30), invalid("Expected `int` <= 2147483647", "n")),
    "n: 9": (chat(n=9), invalid("n: 1 to 8", "n")),
    "n: 0": (chat(n=0), invalid("n: 1 to 8", "n")),
    "temperature: 2.1": (chat(temperature=2.1), invalid("temperature: 0 to 2", "temperature")),
    "top_p: -1": (chat(top_p=-1), invalid("top_p: 0 to 1", "top_p")),
    "max_tokens: 0": (
        chat(max_tokens=0),
        invalid("max_completion_tokens: 1 to 10000000", "max_completion_tokens"),
    ),
    "top_logprobs: 21": (
        chat(logprobs=True, top_logprobs=21),
        invalid("top_logprobs: 0 to 20", "top_logprobs"),
    ),
    "stop: 17 of them": (chat(stop=["x"] * 17), invalid("stop: at most 16", "stop")),
    "stop: an empty one": (
        chat(stop=["x", ""]),
        invalid("stop[1]: 1 to 1024 characters", "stop[1]"),
    ),
    "logit_bias: 101": (
        chat(logit_bias={"50256": 101}),
        invalid("logit_bias['50256']: -100 to 100", "logit_bias['50256']"),
    ),
    # Unknown values
    "role": (
        chat(messages=[{"role": "robot", "content": "hi"}]),
        invalid(
            "must be one of system, developer, user, assistant, tool, function", "messages[0].role"
        ),
    ),
    "tool_choice": (
        chat(tools=[tool()], tool_choice="maybe"),
        invalid("must be one of auto, none, required or an object", "tool_choice"),
    ),
    "tool_choice: another kind": (
        chat(tools=[tool()], tool_choice={"type": "custom"}),
        invalid("must be function or allowed_tools", "tool_choice.type"),
    ),
    "reasoning_effort": (
        chat(reasoning_effort="heroic"),
        invalid("must be one of none, minimal, low, medium, high, xhigh, max", "reasoning_effort"),
    ),
    "response_format": (
        chat(response_format={"type": "yaml"}),
        invalid("Invalid enum value 'yaml'", "response_format.type"),
    ),
    "a part": (
        chat(messages=[{"role": "user", "content": [{"type": "smell"}]}]),
        invalid(
            "must be text, image_url, input_audio, file or refusal", "messages[0].content[0].type"
        ),
    ),
    "a part without its field": (
        chat(messages=[{"role": "user", "content": [{"type": "text"}]}]),
        invalid("is needed", "messages[0].content[0].text"),
    ),
    "a format of audio": (
        chat(
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_audio", "input_audio": {"data": "", "format": "ogg"}}
                    ],
                }
            ]
        ),
        invalid("must be wav or mp3", "messages[0].content[0].input_audio.format"),
    ),
    "no base64": (
        chat(
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,*"}}
                    ],
                }
            ]
        ),
        invalid("is no base64", "messages[0].content[0].image_url.url"),
    ),
    "another scheme": (
        chat(
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
                }
            ]
        ),
        invalid(
            "messages[0].content[0].image_url.url: must be an http(s), gs or s3 URL of at most 8,000 characters",
            "messages[0].content[0].image_url.url",
        ),
    ),
    "a type of tool": (
        chat(tools=[{"type": "custom", "custom": {"name": "f"}}]),
        invalid("only function tools are served", "tools[0].type"),
    ),
    # Messages that make no conversation
    "empty messages": (
        chat(messages=[]),
        invalid("messages: at least one message is needed", "messages", "empty_prompt"),
    ),
    "empty content": (
        chat(messages=[{"role": "user", "content": ""}]),
        invalid("messages: at least one message must have content", "messages", "empty_prompt"),
    ),
    "no content": (chat(messages=[{"role": "user"}]), invalid("is needed", "messages[0].content")),
    "a result without a call": (
        chat(messages=[*HELLO, {"role": "tool", "tool_call_id": "c1", "content": "x"}]),
        invalid(
            "messages[1].tool_call_id: answers no tool call of an earlier message",
            "messages[1].tool_call_id",
        ),
    ),
    "a result without an id": (
        chat(messages=[*HELLO, {"role": "tool", "content": "x"}]),
        invalid("is needed", "messages[1].tool_call_id"),
    ),
    "two results of a call": (
        chat(
            messages=[
                *HELLO,
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "x"},
                {"role": "tool", "tool_call_id": "c1", "content": "x"},
            ]
        ),
        invalid(
            "messages[3].tool_call_id: the call was answered before", "messages[3].tool_call_id"
        ),
    ),
    "a call by the user": (
        chat(messages=[{"role": "user", "content": "hi", "tool_calls": [CALL]}]),
        invalid("messages[0].tool_calls: only the assistant calls tools", "messages[0].tool_calls"),
    ),
    "two calls of one id": (
        chat(messages=[*HELLO, {"role": "assistant", "tool_calls": [CALL, CALL]}]),
        invalid("messages[1].tool_calls.id: is used twice", "messages[1].tool_calls.id"),
    ),
    # Tools and schemas
    "two tools of a name": (
        chat(tools=[tool(), tool()]),
        invalid("tools[1].function.name: is used twice", "tools[1].function.name"),
    ),
    "a tool without a name": (
        chat(tools=[{"type": "function", "function": {}}]),
        invalid("Object missing required field `name`", "tools[0].function.name"),
    ),
    "a tool's name": (
        chat(tools=[tool("f g")]),
        invalid("tools[0].function.name: must match [a-zA-Z0-9_-]{1,64}", "tools[0].function.name"),
    ),
    "parameters that are no schema": (
        chat(tools=[tool(parameters={"type": "objekt"})]),
        invalid(
            "tools[0].function.parameters: is no JSON Schema (at /type)",
            "tools[0].function.parameters",
        ),
    ),
    "parameters: a string": (
        chat(tools=[tool(parameters="object")]),
        invalid(
            "tools[0].function.parameters: must be a JSON object", "tools[0].function.parameters"
        ),
    ),
    "a choice of no tool": (
        chat(tools=[tool()], tool_choice=tool("g")),
        invalid(
            "tool_choice.function.name: names no tool of this request", "tool_choice.function.name"
        ),
    ),
    "a choice without tools": (
        chat(tool_choice="required"),
        invalid("tool_choice: REQUIRED needs tools", "tool_choice"),
    ),
    "a schema that is none": (
        chat(response_format=schema({"type": 5})),
        invalid(
            "response_format.json_schema.schema: is no JSON Schema (at /type)",
            "response_format.json_schema.schema",
        ),
    ),
    "a schema: a list": (
        chat(response_format=schema([])),
        invalid(
            "response_format.json_schema.schema: must be a JSON object",
            "response_format.json_schema.schema",
        ),
    ),
    "no schema": (
        chat(response_format={"type": "json_schema", "json_schema": {"name": "s"}}),
        invalid("is needed", "response_format.json_schema.schema"),
    ),
    "a schema's name": (
        chat(response_format={"type": "json_schema", "json_schema": {"name": "", "schema": {}}}),
        invalid(
            "response_format.json_schema.name: must match [a-zA-Z0-9_-]{1,64}",
            "response_format.json_schema.name",
        ),
    ),
    # Text that is none
    "half a surrogate pair": (
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        NO_JSON,
    ),
    "half a surrogate pair in a tool": (
        chat(tools=[tool(parameters={"title": "\ud800"})]),
        NO_JSON,
    ),
    # Contradictions, and what is not served
    "two limits": (
        chat(max_tokens=5, max_completion_tokens=6),
        invalid("differs from max_completion_tokens", "max_tokens"),
    ),
    "functions": (
        chat(functions=[{"name": "f"}]),
        invalid("was replaced by tools, and is not served", "functions"),
    ),
    "function_call": (
        chat(function_call="auto"),
        invalid("was replaced by tools, and is not served", "functions"),
    ),
    "metadata: a list": (chat(metadata=[]), invalid("metadata: must be a JSON object", "metadata")),
    "audio": (
        chat(modalities=["audio"]),
        invalid("modalities[0]: each of image, text at most once", "modalities[0]"),
    ),
    # Our own extension
    "trunkline: an unknown key": (
        chat(trunkline={"recover": "restart"}),
        invalid("Object contains unknown field `recover`", "trunkline.recover"),
    ),
    "trunkline: an unknown key inside": (
        chat(trunkline={"constraints": {"max_atempts": 1}}),
        invalid("Object contains unknown field `max_atempts`", "trunkline.constraints.max_atempts"),
    ),
    "trunkline: an unknown value": (
        chat(trunkline={"unsupported": "ignore"}),
        invalid("Invalid enum value 'ignore'", "trunkline.unsupported"),
    ),
    "trunkline: out of range": (
        chat(trunkline={"constraints": {"max_attempts": 6}}),
        invalid("trunkline.constraints.max_attempts: 1 to 5", "trunkline.constraints.max_attempts"),
    ),
    "trunkline: no time at all": (
        chat(trunkline={"constraints": {"idle_timeout_s": 0}}),
        invalid(
            "trunkline.constraints.idle_timeout_s: more than 0 s and at most 3,600 s",
            "trunkline.constraints.idle_timeout_s",
        ),
    ),
    # Who is asked
    "an unknown model": (
        chat(model="plain/raw-locla"),
        invalid(
            "no model, alias or route is called 'plain/raw-locla'; did you mean 'plain/raw-local'?",
            None,
            "model_not_found",
            404,
        ),
    ),
    "a model's name of a page": (
        chat(model="m" * 2000),
        invalid("model: at most 256 characters", "model"),
    ),
}


def streaming(body: bytes) -> bytes:
    """The same, but that the answer is to be a stream."""
    return body.replace(b'{"model"', b'{"stream":true,"model"', 1)


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_body_is_refused_with_the_field_that_is_wrong(gateway, http, name):
    body, expected = BODIES[name]
    before = len(gateway.upstream.exchanges)

    responses = [await http.post(CHAT, content=sent) for sent in (body, streaming(body))]

    for response in responses:
        assert (response.status_code, response.json()) == expected
        assert response.headers["x-should-retry"] == "false"
    assert len(gateway.upstream.exchanges) == before


@pytest.mark.parametrize("how", ["with its length", "in chunks"])
async def test_a_body_of_33_mib_is_refused(gateway, http, how):
    body = chat(messages=[{"role": "user", "content": "x" * 33 * MIB}])

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), MIB):
            yield body[start : start + MIB]

    before = len(gateway.upstream.exchanges)

    response = await http.post(CHAT, content=body if how == "with its length" else pieces())

    assert (response.status_code, response.json()) == invalid(
        f"the body is larger than {32 * MIB} bytes", None, "payload_too_large", 413
    )
    assert len(gateway.upstream.exchanges) == before


async def test_a_body_of_32_mib_is_served(gateway, http):
    gateway.steps = message()
    rest = len(chat(messages=[{"role": "user", "content": ""}]))
    body = chat(messages=[{"role": "user", "content": "x" * (32 * MIB - rest)}])

    response = await http.post(CHAT, content=body)

    assert len(body) == 32 * MIB
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", CHAT),
        ("PUT", CHAT),
        ("DELETE", CHAT),
        ("POST", "/v1/models"),
        ("DELETE", "/v1/models/m"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/chat/completions/"),
        ("GET", "/"),
        ("POST", "/livez"),
    ],
)
async def test_what_is_not_there_is_not_found(http, method, path):
    response = await http.request(method, path, content=chat() if method == "POST" else None)

    assert (response.status_code, response.json()) == invalid(
        f"no such path: {method} {httpx.URL(path).path}", None, "not_found", 404
    )


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        (
            {"content-encoding": "gzip"},
            gzip.compress(chat()),
            invalid("a compressed body is not accepted", "content-encoding"),
        ),
        (
            {"authorization": "Bearer \u00e9"},
            chat(),
            invalid("the header authorization is no printable ASCII"),
        ),
        (
            {"x-large": "x" * 20_000},
            chat(),
            invalid("headers are larger than 16384 bytes"),
        ),
        (
            {"idempotency-key": "once"},
            chat(),
            invalid("idempotency keys need [accounts]", "idempotency_key", "unimplemented", 501),
        ),
    ],
    ids=["compressed", "no ASCII", "large", "idempotency key"],
)
async def test_headers_that_are_not_served(gateway, http, headers, body, expected):
    before = len(gateway.upstream.exchanges)

    response = await http.post(
        CHAT, content=body, headers={name: value.encode() for name, value in headers.items()}
    )

    assert (response.status_code, response.json()) == expected
    assert len(gateway.upstream.exchanges) == before


@pytest.mark.parametrize("key", [None, "Bearer wrong", "Bearer", "Basic x", f"Bearer {KEY}x"])
@pytest.mark.parametrize("body", [chat(), streaming(chat()), chat(temperature=9)])
async def test_without_a_good_key_nobody_is_asked(gateway, http, key, body):
    before = len(gateway.upstream.exchanges)

    request = http.build_request("POST", CHAT, content=body)
    del request.headers["authorization"]
    if key is not None:
        request.headers["authorization"] = key
    response = await http.send(request)

    assert (response.status_code, response.json()) == (
        401,
        {
            "error": {
                "message": "missing or unknown API key",
                "type": "authentication_error",
                "param": None,
                "code": "invalid_api_key",
            }
        },
    )
    assert len(gateway.upstream.exchanges) == before


OPTIONAL: Final = (
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
    "max_tokens", "metadata", "modalities", "moderation", "n", "parallel_tool_calls", "prediction", "presence_penalty",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "response_format",
    "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options", "temperature",
    "tool_choice", "tools", "top_logprobs", "top_p", "trunkline", "user", "verbosity", "web_search_options",
)  # fmt: skip


async def test_null_is_as_good_as_absent(gateway, http):
    gateway.steps = hello

    response = await http.post(CHAT, content=chat(**dict.fromkeys(OPTIONAL)))

    assert response.status_code == 200, response.text
    sent = gateway.exchanges(FREE)[-1].json
    assert {name: value for name, value in sent.items() if value is not None} == {
        "model": FREE,
        "messages": HELLO,
    }


async def test_null_inside_is_as_good_as_absent(gateway, http):
    gateway.steps = hello
    function = {"name": "f", "description": None, "parameters": None, "strict": None}
    turns = [
        {"role": "user", "content": "hi", "name": None, "tool_calls": None, "tool_call_id": None},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [CALL],
            "audio": None,
        },
        {"role": "tool", "content": "x", "tool_call_id": "c1", "name": None},
    ]

    response = await http.post(
        CHAT,
        content=chat(
            messages=turns,
            tools=[{"type": "function", "function": function}],
            stream_options={"include_usage": None},
        ),
    )

    assert response.status_code == 200, response.text
    empty = {"type": "object", "properties": {}}
    assert gateway.exchanges(FREE)[-1].json == {
        "model": FREE,
        "messages": [
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "x", "tool_call_id": "c1"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": empty}}],
    }


async def test_what_we_do_not_know_goes_to_the_upstream_as_it_came(gateway, http):
    gateway.steps = hello
    extras = {
        "store": True,
        "prompt_cache_key": "k",
        "web_search_options": {"search_context_size": "low"},
        "top_a": 0.30000000000000004,
        "extras": {"a": [1, None, "é\u2028"]},
        "big": 12345678901234567890123,
    }

    response = await http.post(CHAT, content=chat(**extras))

    assert response.status_code == 200, response.text
    sent = gateway.exchanges(FREE)[-1]
    assert sent.json == {"model": FREE, "messages": HELLO, **extras}
    assert b"12345678901234567890123" in sent.body


async def test_every_known_option_reaches_the_upstream(gateway, http):
    gateway.steps = hello
    options = {
        "temperature": 0.5,
        "top_p": 0.25,
        "max_completion_tokens": 7,
        "stop": ["a", "b"],
        "seed": -(2**62),
        "frequency_penalty": -1.5,
        "presence_penalty": 1.5,
        "logprobs": True,
        "top_logprobs": 3,
        "logit_bias": {"50256": -100},
        "verbosity": "low",
        "tools": [tool(parameters={"type": "object", "x": 1}, strict=True, description="d")],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
        "user": "u-1",
        "service_tier": "flex",
    }

    response = await http.post(CHAT, content=chat(**options))

    assert response.status_code == 200, response.text
    assert gateway.exchanges(FREE)[-1].json == {"model": FREE, "messages": HELLO, **options}


FULL: Final[dict[str, Any]] = {
    "model": FREE,
    "messages": [
        {"role": "system", "content": "x", "name": "n"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_data": "data:a/b;base64,AAAA", "filename": "f"}},
            ],
        },
        {"role": "assistant", "content": "x", "refusal": "x", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "x"}]},
    ],
    "stream_options": {"include_usage": True},
    "temperature": 1,
    "n": 1,
    "stop": ["x"],
    "logit_bias": {"1": 1},
    "logprobs": True,
    "top_logprobs": 1,
    "seed": 1,
    "max_tokens": 1,
    "tools": [tool(parameters={"type": "object"}, description="x", strict=True)],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
    },
    "response_format": schema({"type": "object"}),
    "reasoning_effort": "low",
    "metadata": {"a": "b"},
    "user": "u",
    "service_tier": "auto",
    "modalities": ["text"],
    "x": {"y": 1},
    "trunkline": {
        "intent": {"language": "de", "region": "eu", "optimize_for": "cost"},
        "constraints": {
            "allowed_providers": ["free"],
            "max_attempts": 1,
            "first_token_timeout_s": 5,
            "idle_timeout_s": 5,
        },
        "labels": {"a": "b"},
        "session_id": "s",
        "top_k": 1,
        "reasoning_budget_tokens": 1,
        "include_reasoning": True,
        "unsupported": "warn",
    },
}
ODD: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1e308, 2**31, 10**400, "", "x", "\x00", "\ud800", "~" * 70_000, "é\u2028", [], {}, [None],
    ["\ud800"], {"": {}}, {"\ud800": 1}, [[]] * 2000,
)  # fmt: skip


def changed(value: Any) -> Iterator[Any]:
    """Copies of a value in which one place, at any depth, holds something odd or is missing."""
    yield from ODD
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {k: v for k, v in value.items() if k != key}
            for odd in changed(inner):
                yield {**value, key: odd}
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield value[:index] + value[index + 1 :]
            for odd in changed(inner):
                yield [*value[:index], odd, *value[index + 1 :]]


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
async def test_no_change_of_a_good_request_is_our_fault(gateway, http, stride):
    gateway.steps = hello
    for streams in (False, True):
        response = await http.post(CHAT, content=json.dumps({**FULL, "stream": streams}))
        assert response.status_code == 200, response.text
    # Every other one of each place asks for a stream.
    bodies = [
        json.dumps({**body, "stream": True} if index % 2 and isinstance(body, dict) else body)
        for index, body in enumerate(islice(changed(FULL), 0, None, stride))
    ]
    seen: Counter[int] = Counter()

    async def ask(own: list[str]) -> None:
        for body in own:
            response = await http.post(CHAT, content=body)
            told = f"{response.text[:2000]} to {body[:5000]}"
            seen[response.status_code] += 1
            if response.status_code == 200:
                if response.headers["content-type"] != "application/json":
                    assert response.text.endswith("data: [DONE]\n\n"), told
                continue
            assert response.status_code in (400, 404, 501), told
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}, told
            assert error["type"] == "invalid_request_error", told
            assert "spec." not in error["message"], told

    await asyncio.gather(*(ask(bodies[start::32]) for start in range(32)))

    assert seen.total() == len(bodies) > 2_000 // stride
    assert min(seen[200], seen[400]) > 200 // stride
