"""A request that only some providers may answer, all of which are down: it fails, says why, and names each.

Over gRPC, OpenAI's API and Speko's; nobody who was not allowed is asked.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from tests.edges.errors import reason_of
from tests.edges.observed import LIMIT_S, spec, stream
from tests.support.service import model, provider, service
from tests.support.upstream import Reset, Step, Upstream, hello, upstream, whole
from trunkline.v1.completion_spec_pb2 import RoutingConstraints
from trunkline_server.app import Service

HELLO: Final = [{"role": "user", "content": "hi"}]
UNREACHABLE: Final = "provider unreachable"


@dataclass
class Pinned:
    """A service with the providers a, b and c, of which c alone is up."""

    service: Service
    up: Upstream


@asynccontextmanager
async def pinned(*down: Sequence[Step] | None) -> AsyncIterator[Pinned]:
    """Where a and b answer like this, or are not there at all."""
    async with upstream(down[0] or ()) as a, upstream(down[1] or ()) as b, upstream(hello) as c:
        urls = {"a": a.url, "b": b.url, "c": c.url}
        for name, steps in zip("ab", down, strict=True):
            if steps is None:
                async with upstream(()) as gone:
                    urls[name] = gone.url
        async with service(
            providers=[provider(name, url) for name, url in urls.items()],
            models=[model(f"m-{name}", name) for name in urls],
        ) as running:
            yield Pinned(running, c)


async def over_grpc(running: Service, names: Sequence[str]) -> tuple[str, str]:
    """Reason and message."""
    found = await stream(
        running, spec("auto", constraints=RoutingConstraints(allowed_providers=names))
    )
    assert found.error is not None
    return reason_of(found.error)[1], found.error.details() or ""


async def _post(running: Service, path: str, body: Mapping[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(timeout=LIMIT_S) as http:
        return await http.post(f"http://{running.http_address}{path}", json=body)


async def over_openai(running: Service, names: Sequence[str]) -> tuple[str, str]:
    """Status and code, and message."""
    body = {
        "model": "auto",
        "messages": HELLO,
        "trunkline": {"constraints": {"allowed_providers": names}},
    }
    response = await _post(running, "/v1/chat/completions", body)
    error = response.json()["error"]
    return f"{response.status_code} {error['code']}", error["message"]


async def over_speko(running: Service, names: Sequence[str]) -> tuple[str, str]:
    """Status and code, and message."""
    body = {
        "messages": HELLO,
        "intent": {"language": "en"},
        "constraints": {"allowedProviders": {"llm": names}},
    }
    response = await _post(running, "/v1/complete", body)
    error = response.json()
    return f"{response.status_code} {error['code']}", error["error"]


EDGES: Final[
    Mapping[
        str,
        tuple[Callable[[Service, Sequence[str]], Awaitable[tuple[str, str]]], Mapping[str, str]],
    ]
] = {
    "gRPC": (over_grpc, {"failed": "ALL_PROVIDERS_FAILED", "nobody": "NO_ELIGIBLE_PROVIDER"}),
    "OpenAI": (
        over_openai,
        {"failed": "502 all_providers_failed", "nobody": "400 no_eligible_provider"},
    ),
    "Speko": (over_speko, {"failed": "502 COMPLETE_FAILED", "nobody": "400 VALIDATION_ERROR"}),
}


def parts_of(message: str) -> tuple[str, set[str]]:
    """What is said, and of whom."""
    said, _, named = message.partition(": ")
    return said, set(named.split("; "))


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize(
    ("down", "why"),
    [
        ((None, None), (UNREACHABLE, UNREACHABLE)),
        (([Reset()], None), ("provider connection lost", UNREACHABLE)),
        (
            (whole({"error": {}}, 500), whole({}, 401)),
            ("provider unavailable", "provider credentials rejected"),
        ),
    ],
    ids=["nobody there", "a reset", "errors"],
)
async def test_where_all_that_may_answer_are_down_each_is_named_with_its_failure(edge, down, why):
    ask, codes = EDGES[edge]
    async with pinned(*down) as found:
        code, message = await ask(found.service, ["a", "b"])

    assert code == codes["failed"]
    assert parts_of(message) == (
        "all providers failed",
        {f"a/m-a: {why[0]}", f"b/m-b: {why[1]}"},
    )
    assert found.up.exchanges == []


@pytest.mark.parametrize("edge", EDGES)
async def test_where_nobody_is_left_each_candidate_is_named_with_the_reason(edge):
    ask, codes = EDGES[edge]
    async with pinned(None, None) as found:
        code, message = await ask(found.service, ["x", "y"])

    assert code == codes["nobody"]
    assert parts_of(message) == (
        "no candidate is left",
        {f"{name}/m-{name}: not an allowed provider" for name in "abc"},
    )
    assert found.up.exchanges == []


@pytest.mark.parametrize("edge", EDGES)
async def test_those_that_are_left_alone_for_now_are_named_too(edge):
    ask, codes = EDGES[edge]
    async with pinned(None, None) as found:
        told = [await ask(found.service, ["a", "b"]) for _ in range(12)]

    assert {code for code, _ in told} == {codes["failed"]}
    for _, message in told:
        assert {name.partition(":")[0] for name in parts_of(message)[1]} == {"a/m-a", "b/m-b"}
    assert found.up.exchanges == []
