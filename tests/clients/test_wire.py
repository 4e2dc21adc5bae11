"""The OpenAI shim to the byte: what curl receives, chunk by chunk, header by header."""

import asyncio
import json
import re
import time
from typing import Any, Final

import httpx
import pytest

from tests.clients.gateway import FREE, KEY, LIMIT_S, need, run, shim
from tests.clients.script import LOGPROBS, TOOL_CALLS, USAGE, piece, stream
from tests.support.service import service_over
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Step,
    delta,
    event,
    finish,
    head,
    upstream,
    usage,
    whole,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO: Final = [{"role": "user", "content": "hi"}]
ROLE: Final = {"role": "assistant", "content": "", "refusal": None}
DETAILS: Final = {
    "prompt_tokens_details": {
        "cached_tokens": 0,
        "cache_write_tokens": 0,
        "audio_tokens": 0,
        "image_tokens": 0,
    },
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
# What every response says of the caller's limits, after `without_limits`.
LIMITS: Final = [
    "ratelimit-limit",
    "ratelimit-policy",
    "ratelimit-remaining",
    "ratelimit-reset",
    "ratelimit",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
]
HEARTBEAT_S: Final = 0.1
# The command has no option for this; what it runs has.
QUICK_SHIM: Final = f"""
import asyncio, sys
from trunkline_server.app import serve_shim
from trunkline_server.config import ServerSettings
settings = ServerSettings(http="127.0.0.1:0", heartbeat_s={HEARTBEAT_S})
announce = lambda address: print(f"trunkline: HTTP on {{address}}", flush=True)
asyncio.run(serve_shim(settings, sys.argv[1], announce))
"""


async def curl(url: str, body: dict[str, Any], *options: str) -> tuple[str, list[str], bytes]:
    """Status line, sorted headers and the exact bytes of the body."""
    code, out, err = await run(
        need("curl", "install curl"), "-sS", "-N", "-i", f"{url}/v1/chat/completions",
        "-H", "content-type: application/json", "-H", f"authorization: Bearer {KEY}",
        "-d", json.dumps(body), *options,
    )  # fmt: skip
    assert code == 0, err.decode()
    top, _, rest = out.partition(b"\r\n\r\n")
    status, *headers = top.decode().split("\r\n")
    return status, sorted(headers), rest


def without_limits(headers: list[str]) -> list[str]:
    """Those about limits by their names alone: their values depend on what was asked before."""
    return [h.split(":")[0] if h.split(":")[0] in LIMITS else h for h in headers]


async def test_a_stream_as_curl_receives_it(gateway, url):
    gateway.steps = stream(delta("Hé\u2028!"), finish())
    body = {"model": FREE, "messages": HELLO, "stream": True}

    status, headers, answer = await curl(url, body, "-H", "x-request-id: my-own-id-1")

    match = re.search(rb'"id":"(chatcmpl-[0-9A-Z]{26})".*?"created":(\d{10}),', answer)
    assert match, answer
    stem = b'data: {"id":"%b","object":"chat.completion.chunk","created":%b,"model":"m","choices":[' % (
        match.groups()
    )  # fmt: skip
    duration = re.search(rb'"duration_s":([\d.]+)', answer)
    assert duration
    assert status == "HTTP/1.1 200 OK"
    assert without_limits(headers) == [
        "cache-control: no-cache",
        "content-type: text/event-stream; charset=utf-8",
        *LIMITS[:5],
        "transfer-encoding: chunked",
        "trunkline-failover-count: 0",
        "trunkline-model: m",
        "trunkline-provider: free",
        *LIMITS[5:],
        "x-request-id: my-own-id-1",
    ]
    assert answer == b"".join(
        [
            stem,
            b'{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,',
            b'"finish_reason":null}],"trunkline":{"provider":"free","model":"m","failover_count":0}}\n\n',
            stem,
            '{"index":0,"delta":{"content":"Hé\\u2028!"},"logprobs":null,"finish_reason":null}]}\n\n'.encode(),
            stem,
            b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"trunkline":{"provider":"free",'
            b'"model":"m","failover_count":0,"attempts":[{"provider":"free","model":"m","http_status":200,'
            b'"error":null,"duration_s":%b}]}}\n\n' % duration[1],
            b"data: [DONE]\n\n",
        ]
    )


async def test_an_error_as_curl_receives_it(gateway, url):
    body = {"model": FREE, "messages": HELLO, "temperature": 3}

    status, headers, answer = await curl(url, body, "-H", "x-request-id: my-own-id-2")

    assert status == "HTTP/1.1 400 Bad Request"
    assert without_limits(headers) == [
        f"content-length: {len(answer)}",
        "content-type: application/json",
        *LIMITS,
        "x-request-id: my-own-id-2",
        "x-should-retry: false",
    ]
    assert answer == (
        b'{"error":{"message":"temperature: 0 to 2","type":"invalid_request_error","param":"temperature","code":null}}'
    )


async def test_a_whole_answer(gateway, http):
    gateway.steps = whole(
        {
            "id": "c",
            "object": "chat.completion",
            "model": "m-1",
            "system_fingerprint": "fp_1",
            "service_tier": "default",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hello"},
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
        }
    )
    before_s = time.time()

    response = await http.post("/v1/chat/completions", json={"model": FREE, "messages": HELLO})

    answer = response.json()
    duration_s = answer["trunkline"]["attempts"][0]["duration_s"]
    assert re.fullmatch("chatcmpl-[0-9A-Z]{26}", answer["id"])
    assert int(before_s) <= answer["created"] <= time.time()
    assert answer == {
        "id": answer["id"],
        "object": "chat.completion",
        "created": answer["created"],
        "model": FREE,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {**USAGE, **DETAILS},
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "trunkline": {
            "provider": "free",
            "model": FREE,
            "failover_count": 0,
            "attempts": [
                {
                    "provider": "free",
                    "model": FREE,
                    "http_status": 200,
                    "error": None,
                    "duration_s": duration_s,
                }
            ],
        },
    }
    assert re.fullmatch("req_[0-9A-Z]{26}", response.headers.pop("x-request-id"))
    assert [response.headers.pop(name) for name in LIMITS if name != "ratelimit"]
    assert re.fullmatch('"requests";r=[0-9]+;t=[01]', response.headers.pop("ratelimit"))
    assert dict(response.headers) == {
        "content-type": "application/json",
        "content-length": str(len(response.content)),
        "trunkline-provider": "free",
        "trunkline-model": FREE,
        "trunkline-failover-count": "0",
    }


def chunks_of(data: bytes) -> list[Any]:
    """The payloads of a stream; `[DONE]` as it is."""
    payloads = []
    for block in data.decode().removesuffix("\n\n").split("\n\n"):
        assert block.startswith("data: ")
        assert "\n" not in block
        text = block.removeprefix("data: ")
        payloads.append(text if text == "[DONE]" else json.loads(text))
    return payloads


async def read(http: httpx.AsyncClient, body: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The chunks of a stream without what they share, and that; the attempts' durations are left out."""
    response = await http.post(
        "/v1/chat/completions", json={"messages": HELLO, "stream": True, **body}
    )
    assert response.status_code == 200, response.text
    chunks = chunks_of(response.content)
    shared = {key: chunks[0][key] for key in ("id", "object", "created", "model")}
    seen = []
    for payload in chunks:
        if isinstance(payload, dict) and "error" not in payload:
            assert {key: payload.pop(key) for key in shared} == shared
            for attempt in payload.get("trunkline", {}).get("attempts", ()):
                assert attempt.pop("duration_s") >= 0
        seen.append(payload)
    return seen, shared


def chosen(
    content: Any, index: int = 0, reason: str | None = None, logprobs: Any = None
) -> dict[str, Any]:
    """The one choice of a chunk."""
    return {"index": index, "delta": content, "logprobs": logprobs, "finish_reason": reason}


def first(model: str, provider: str, index: int = 0) -> dict[str, Any]:
    """The chunk that a stream begins with."""
    extension = {"provider": provider, "model": model, "failover_count": 0}
    return {"choices": [chosen(ROLE, index)], "trunkline": extension}


def last_extension(model: str, provider: str) -> dict[str, Any]:
    """`trunkline` of the last chunk."""
    attempt = {"provider": provider, "model": model, "http_status": 200, "error": None}
    return {"provider": provider, "model": model, "failover_count": 0, "attempts": [attempt]}


async def test_chunks_with_usage(gateway, http):
    gateway.steps = stream(delta("Hello"), finish("length"))

    seen, shared = await read(http, {"model": FREE, "stream_options": {"include_usage": True}})

    assert shared["object"] == "chat.completion.chunk"
    assert shared["model"] == FREE
    assert seen == [
        {**first(FREE, "free"), "usage": None},
        {"choices": [chosen({"content": "Hello"})], "usage": None},
        {"choices": [chosen({}, reason="length")], "usage": None},
        {"choices": [], "usage": {**USAGE, **DETAILS}, "trunkline": last_extension(FREE, "free")},
        "[DONE]",
    ]


async def test_chunks_of_tool_calls(http, edge):
    name = f"tools/raw-{edge}"

    seen, _ = await read(http, {"model": name})

    calls: list[Any] = []
    for index, (key, tool, pieces) in enumerate(TOOL_CALLS):
        function = {"name": tool, "arguments": ""}
        calls.append({"index": index, "id": key, "type": "function", "function": function})
        calls += [{"index": index, "function": {"arguments": fragment}} for fragment in pieces]
    assert seen == [
        first(name, f"raw-{edge}"),
        *({"choices": [chosen({"tool_calls": [call]})]} for call in calls),
        {
            "choices": [chosen({}, reason="tool_calls")],
            "trunkline": last_extension(name, f"raw-{edge}"),
        },
        "[DONE]",
    ]


async def test_chunks_of_several_choices(http, edge):
    name = f"choices/raw-{edge}"

    seen, _ = await read(http, {"model": name, "n": 2})

    assert seen == [
        first(name, f"raw-{edge}"),
        {"choices": [chosen({"content": "Hel"}, 0)]},
        {"choices": [chosen(ROLE, 1)]},
        {"choices": [chosen({"content": "By"}, 1)]},
        {"choices": [chosen({"content": "lo"}, 0)]},
        {"choices": [chosen({"content": "e"}, 1)]},
        {"choices": [chosen({}, 1, "stop")]},
        {
            "choices": [chosen({}, 0, "length")],
            "trunkline": last_extension(name, f"raw-{edge}"),
        },
        "[DONE]",
    ]


async def test_chunks_with_logprobs(http, edge):
    name = f"logprobs/raw-{edge}"

    seen, _ = await read(http, {"model": name, "logprobs": True, "top_logprobs": 2})

    tokens = [
        {
            "choices": [
                chosen({"content": token["token"]}, logprobs={"content": [token], "refusal": None})
            ]
        }
        for token in LOGPROBS
    ]
    assert seen[1:-2] == tokens


async def test_chunks_of_reasoning_and_refusal(gateway, http):
    gateway.steps = stream(
        piece({"reasoning_content": "Hm."}), piece({"refusal": "No."}), finish("content_filter")
    )

    seen, _ = await read(http, {"model": FREE, "trunkline": {"include_reasoning": True}})

    assert [payload["choices"][0] for payload in seen[:-1]] == [
        chosen(ROLE),
        chosen({"reasoning_content": "Hm."}),
        chosen({"refusal": "No."}),
        chosen({}, reason="content_filter"),
    ]


async def test_an_error_in_the_middle_ends_the_stream_without_done(http, edge):
    seen, _ = await read(http, {"model": f"broken/raw-{edge}"})

    assert seen[1:] == [
        {"choices": [chosen({"content": "Hel"})]},
        {
            "error": {
                "message": "the provider's stream broke off",
                "type": "server_error",
                "param": None,
                "code": "stream_interrupted",
            }
        },
    ]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
async def test_line_ends_of_unicode_travel_as_escapes(http, edge, streams):
    body = {"model": f"line-ends/raw-{edge}", "messages": HELLO, "stream": streams}

    response = await http.post("/v1/chat/completions", json=body)

    assert response.status_code == 200
    for end, escape in (("\u2028", rb"\u2028"), ("\u2029", rb"\u2029"), ("\u0085", rb"\u0085")):
        assert end.encode() not in response.content
        assert escape in response.content
    # A client that splits on any of them sees the lines that there are.
    assert response.text.splitlines() == response.text.removesuffix("\n").split("\n")


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("asked", "echoed"),
    [
        ("my_own-ID_12345678", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("short", False),
        ("with spaces in it", False),
        (None, False),
    ],
)
async def test_every_answer_has_an_id(gateway, http, streams, asked, echoed):
    gateway.steps = stream(delta("Hello"), finish()) if streams else whole({"choices": []}, 400)
    headers = {} if asked is None else {"x-request-id": asked}

    responses = [
        await http.post(
            "/v1/chat/completions",
            json={"model": FREE, "messages": HELLO, "stream": streams},
            headers=headers,
        ),
        await http.post("/v1/chat/completions", content=b"{", headers=headers),
        await http.get("/v1/models", headers=headers),
        await http.get("/v1/models/no-such", headers=headers),
        await http.get("/no/such/path", headers=headers),
    ]

    assert [r.status_code for r in responses] == [200 if streams else 400, 400, 200, 404, 404]
    for response in responses:
        (found,) = response.headers.get_list("x-request-id")
        assert found == asked if echoed else re.fullmatch("req_[0-9A-Z]{26}", found)


async def test_models(http):
    listed = (await http.get("/v1/models")).json()
    found = await http.get("/v1/models/plain/raw-local")
    pinned = await http.get("/v1/models/free/m")
    alias = await http.get("/v1/models/vendor%2Fof%3Amany")
    unknown = await http.get("/v1/models/plain/raw-locla")

    entry = {"id": FREE, "object": "model", "created": 0, "owned_by": "free"}
    assert listed["object"] == "list"
    assert listed["data"][0] == entry == pinned.json() == alias.json()
    assert found.json() == {
        "id": "plain/raw-local",
        "object": "model",
        "created": 0,
        "owned_by": "raw-local",
    }
    assert unknown.status_code == 404
    assert unknown.json() == {
        "error": {
            "message": "no model is called 'plain/raw-locla'",
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_goes_before_the_first_byte_closes_the_upstream(gateway, url, streams):
    asked = asyncio.Event()

    async def never(exchange: Exchange) -> list[Step]:
        asked.set()
        return [Hang()]

    gateway.steps = never
    body = {"model": FREE, "messages": HELLO, "stream": streams}
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as client:
        asking = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=body))
        async with asyncio.timeout(LIMIT_S):
            await asked.wait()
        asking.cancel()
        await asyncio.wait([asking])

    async with asyncio.timeout(LIMIT_S):
        await gateway.exchanges(FREE)[-1].closed.wait()


SILENT: Final[list[Step]] = [
    Pause(3.5 * HEARTBEAT_S), head(), event(delta("Hel")), Pause(2.5 * HEARTBEAT_S),
    event(delta("lo")), event(finish()), event(usage()), event("[DONE]"), END,
]  # fmt: skip


async def test_comments_keep_a_silent_stream_awake():
    async with (
        upstream(SILENT) as slow,
        service_over(slow.url, server={"heartbeat_s": HEARTBEAT_S}) as service,
        shim("", "-c", QUICK_SHIM, service.grpc_address) as shim_url,
        httpx.AsyncClient(timeout=LIMIT_S) as http,
    ):
        body = {"model": "all", "messages": HELLO, "stream": True}
        responses = await asyncio.gather(
            http.post(f"http://{service.http_address}/v1/chat/completions", json=body),
            http.post(f"{shim_url}/v1/chat/completions", json=body),
        )

    for response in responses:
        assert response.status_code == 200
        assert re.fullmatch("req_[0-9A-Z]{26}", response.headers["x-request-id"])
        blocks = response.text.removesuffix("\n\n").split("\n\n")
        data = [index for index, block in enumerate(blocks) if block != ": hb"]
        texts = [json.loads(blocks[i][6:])["choices"][0]["delta"].get("content") for i in data[:-1]]
        assert texts == ["", "Hel", "lo", None]
        assert blocks[-1] == "data: [DONE]"
        assert data[0] >= 2, "comments before the first chunk"
        assert data[2] - data[1] >= 2, "a comment while the upstream pauses"
