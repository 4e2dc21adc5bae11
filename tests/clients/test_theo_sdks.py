"""Theo's endpoints over both edges: in OpenAI's format through the official OpenAI SDKs, in Theo's own through httpx.

As in `test_sdks`, each SDK runs all cases of its `drive_theo` once for each edge, and all find the same. Theo's own SDK
is in no package registry.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio

from tests.clients import drive_theo
from tests.clients.gateway import EDGES, HERE, KEY, LIMIT_S, ROOT, missing, need, run, shim
from tests.support.service import model, provider, service
from tests.support.upstream import Exchange, Step, answer, message, upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

SDKS: Final = ("python", "openai-1x", "node")
PRICES: Final = {"input_price": 1.0, "output_price": 2.0}  # US dollars per million tokens.
COST_CENTS: Final = 0.0017  # Of 9 tokens, and 4.


@dataclass
class Theo:
    """A running service, and both edges by name."""

    urls: Mapping[str, str]


def counted(exchange: Exchange) -> Sequence[Step]:
    """Says how many messages it was shown, instructions aside."""
    number = sum(message["role"] != "system" for message in exchange.json["messages"])
    if exchange.json.get("stream"):
        return answer("I see ", str(number))
    return message(f"I see {number}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theo() -> AsyncIterator[Theo]:
    async with (
        upstream(counted) as scripted,
        service(
            environment={"KEY": KEY},
            providers=[provider("p", scripted.url)],
            models=[model("m", "p", **PRICES)],
            keys=[{"id": "tests", "key_env": "KEY"}],
            # The answers of this model to themselves are no part of what is asked for.
            modes=[{"id": name, "follow_ups": False, "cache_s": 0} for name in ("fast", "think", "code")],
        ) as started,
        shim(started.grpc_address) as shim_url,
    ):  # fmt: skip
        yield Theo({"local": f"http://{started.http_address}", "shim": shim_url})


@pytest.fixture(scope="module", params=SDKS)
def sdk(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=EDGES)
def edge(request: pytest.FixtureRequest) -> str:
    """The service's own port, or the shim before it."""
    name: str = request.param
    return name


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(theo: Theo, sdk: str, edge: str) -> Mapping[str, Any]:
    """Of all cases."""
    if sdk == "python":
        async with asyncio.timeout(LIMIT_S):
            found = await asyncio.to_thread(drive_theo.results, theo.urls[edge], KEY)
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]
    code, out, err = await run(*_program(sdk), theo.urls[edge], KEY)
    assert code == 0, err.decode()
    return json.loads(out)  # type: ignore[no-any-return]


def _program(sdk: str) -> list[str]:
    if sdk == "node":
        if not (HERE / "node/node_modules/openai").is_dir():
            missing("the Node SDK is not installed: make setup-clients")
        return [
            need("node", "install Node.js, then make setup-clients"),
            str(HERE / "node/drive_theo.mjs"),
        ]
    python = need(ROOT / ".venv-openai-1x/bin/python", "make setup-clients")
    return [python, "-W", "error", str(HERE / "drive_theo.py")]


def metadata(mode: str) -> dict[str, Any]:
    """The object `theo_metadata`, as far as it is steady."""
    return {
        "mode": mode,
        "resolved_mode": mode,
        "tools_used": [],
        "artifacts": [],
        "engine": "p/m",
        "cost_cents": COST_CENTS,
    }


def whole(mode: str, engine: str) -> dict[str, Any]:
    """A response."""
    return {
        "object": "chat.completion",
        "id": "chatcmpl-",
        "model": engine,
        "text": "I see 1",
        "finish": "stop",
        "usage": [9, 4, 13],
        "metadata": metadata(mode),
    }


def streamed(*usages: list[int]) -> dict[str, Any]:
    """A stream."""
    return {
        "heads": [["chat.completion.chunk", "chatcmpl-", "theo-1-reason"]],
        "text": "I see 1",
        "finishes": ["stop"],
        "usages": list(usages),
        "metadata": metadata("think"),
    }


def refused(name: str, status: int, code: str, kind: str, text: str) -> dict[str, Any]:
    """An error."""
    return {"class": name, "status": status, "code": code, "type": kind, "message": text}


INVALID: Final = "invalid_request_error"
EXPECTED: Final[Mapping[str, Any]] = {
    "whole": whole("think", "theo-1-reason"),
    "stream": streamed(),
    "include_usage": streamed([9, 4, 13]),
    "prompt": whole("code", "theo-1-code"),
    "conversation": ["conv_", "I see 1", "I see 3", True],
    "models": ["theo-1-flash", "theo-1-reason", "theo-1-code", "theo-1-create"],
    "wrong_key": refused(
        "AuthenticationError", 401, "invalid_api_key", "authentication_error", "missing or unknown API key"
    ),
    "empty": refused(
        "BadRequestError", 400, "empty_prompt", INVALID, "messages: must contain a message of the user"
    ),
    "research": refused(
        "BadRequestError", 400, "validation_error", INVALID, "mode: research takes long: ask for it as a job"
    ),
    "lost": refused(
        "NotFoundError", 404, "not_found", "not_found_error", "no conversation of yours has this id"
    ),
}  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize("case", EXPECTED)
async def test_every_sdk_reads_openais_format_alike(results, case):
    assert results[case] == EXPECTED[case]


@pytest_asyncio.fixture(loop_scope="module")
async def http(theo: Theo, edge: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the edge."""
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(
        base_url=theo.urls[edge], headers=headers, timeout=LIMIT_S, verify=False
    ) as client:
        yield client


ASKED: Final = {"prompt": "How many?", "mode": "fast", "metadata": {"team": "a", "n": 1.5}}
USAGE: Final = {
    "cost_cents": COST_CENTS,
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
}
MODEL: Final = {"id": "theo-1-flash", "engine": "p/m"}


async def test_theos_own_format_is_whole(http):
    response = await http.post("/api/v1/completions", json=ASKED)

    found = response.json()
    label = found["model"].pop("label")
    assert (response.status_code, bool(label)) == (200, True)
    assert found.pop("id").startswith("cmpl_")
    assert found.pop("created").endswith("Z")
    assert found.pop("request_id") == response.headers["x-request-id"]
    assert found == {
        "object": "completion",
        "content": "I see 1",
        "mode": "fast",
        "resolved_mode": "fast",
        "model": MODEL,
        "tools_used": [],
        "artifacts": [],
        "follow_ups": [],
        "usage": USAGE,
        "routing": {
            "requested_mode": "fast",
            "resolved_mode": "fast",
            "promoted": False,
            "reason": "requested",
            "confidence": None,
        },
        "conversation_id": None,
        "metadata": {"team": "a", "n": 1.5},
        "finish_reason": "stop",
    }


async def test_theos_own_format_streams(http):
    response = await http.post("/api/v1/completions", json={**ASKED, "stream": True})

    blocks = response.text.removesuffix("\n\n").split("\n\n")
    named = [block.partition("\ndata: ")[::2] for block in blocks]
    # A shim that is far away may merge what came at once.
    assert [name for name, _ in named if name != "event: token"] == [
        "event: thinking",
        "event: meta",
        "event: done",
    ]
    tokens = [json.loads(data)["token"] for name, data in named if name == "event: token"]
    meta, done = (
        json.loads(data) for name, data in named if name in ("event: meta", "event: done")
    )
    assert "".join(tokens) == done["content"] == "I see 1"
    assert (done["usage"], done["metadata"]) == (USAGE, {"team": "a", "n": 1.5})
    assert meta["id"] == done["id"]
    assert meta["request_id"] == done["request_id"] == response.headers["x-request-id"]


async def test_a_conversation_is_kept_until_it_is_deleted(http):
    path = "/api/v1/conversations"
    name = (await http.post(path, json={"title": "Counting"})).json()["conversation"]["id"]
    texts = [
        (await http.post("/api/v1/completions", json={**ASKED, "conversation_id": name})).json()["content"]
        for _ in range(2)
    ]  # fmt: skip
    kept = (await http.get(f"{path}/{name}")).json()["conversation"]
    listed = [found["id"] for found in (await http.get(path)).json()["conversations"]]
    gone = (await http.delete(f"{path}/{name}")).status_code
    left = await http.get(f"{path}/{name}/messages")

    assert texts == ["I see 1", "I see 3"]
    assert (kept["title"], kept["messageCount"]) == ("Counting", 4)
    assert [message["content"] for message in kept["messages"]] == [
        "How many?", "I see 1", "How many?", "I see 3",
    ]  # fmt: skip
    assert name in listed
    assert (gone, left.status_code, left.json()["error"]["code"]) == (200, 404, "not_found")


async def test_a_skill_joins_the_requests_of_who_installed_it(http):
    path = "/api/v1/skills"
    slug = (await http.get(path)).json()["skills"][0]["slug"]

    put = (await http.post(f"{path}/{slug}")).json()
    used = (await http.post("/api/v1/completions", json={**ASKED, "skills": [slug]})).json()
    installed = (await http.get(f"{path}?filter=installed")).json()["skills"]
    gone = (await http.request("DELETE", path, json={"skillId": slug})).json()

    assert (put["installed"], gone["installed"]) == (True, False)
    assert [skill["slug"] for skill in used["skills_active"]] == [slug]
    assert [skill["slug"] for skill in installed] == [slug]
