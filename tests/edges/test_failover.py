"""Failure before content moves on and is not seen; failure after it is told, once."""

import grpc
import httpx
import pytest

from tests.support.service import service_over
from tests.support.upstream import (
    Reset,
    Step,
    chunk,
    delta,
    event,
    head,
    hello,
    upstream,
    whole,
)
from trunkline import AllProvidersFailed, AsyncClient, StreamInterrupted, text

BROKEN: dict[str, list[Step]] = {
    "500": whole({"error": {"message": "no"}}, 500),
    "reset": [Reset()],
    "html": [head(200, "text/html"), chunk("<html>")],
    "ends early": [
        head(),
        event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}),
        b"0\r\n\r\n",
    ],
}


@pytest.mark.parametrize("steps", BROKEN.values(), ids=BROKEN.keys())
async def test_the_next_candidate_answers_when_the_first_fails_before_content(steps):
    async with (
        upstream(steps) as broken,
        upstream(hello) as good,
        service_over(broken.url, good.url) as service,
        AsyncClient(service.grpc_address) as client,
    ):
        async with client.stream("hi", model="all") as stream:
            pieces = [piece async for piece in stream.text_deltas()]
            completion = await stream.completion()
        unary = await client.complete("hi", model="all")

    assert "".join(pieces) == text(completion) == text(unary) == "Hello"
    assert [a.provider for a in completion.attempts] == ["a", "b"]
    assert completion.route.total_failover_count == 1


async def test_a_stream_that_breaks_after_content_ends_with_one_error():
    steps: list[Step] = [head(), event(delta("Hel")), Reset()]
    async with (
        upstream(steps) as broken,
        upstream(hello) as good,
        service_over(broken.url, good.url) as service,
        AsyncClient(service.grpc_address) as client,
    ):
        stream = client.stream("hi", model="all")
        pieces = []
        with pytest.raises(StreamInterrupted) as caught:  # noqa: PT012
            async for piece in stream.text_deltas():
                pieces.append(piece)  # noqa: PERF401 - those before the error count

    assert pieces == ["Hel"]
    assert caught.value.code is grpc.StatusCode.ABORTED
    assert good.exchanges == []


async def test_all_failed_tells_clients_not_to_retry():
    failing = whole({"error": {"message": "no"}}, 500)
    async with (
        upstream(failing) as a,
        upstream(failing) as b,
        service_over(a.url, b.url) as service,
    ):
        async with AsyncClient(service.grpc_address) as client:
            with pytest.raises(AllProvidersFailed) as caught:
                await client.complete("hi", model="all")
        async with httpx.AsyncClient() as http:
            body = {"model": "all", "messages": [{"role": "user", "content": "hi"}]}
            response = await http.post(
                f"http://{service.http_address}/v1/chat/completions", json=body
            )

    assert not caught.value.retryable
    assert response.status_code == 502
    assert response.headers["x-should-retry"] == "false"
    assert response.json()["error"] == {
        "message": "all providers failed: a/m-a: provider unavailable; b/m-b: provider unavailable",
        "type": "server_error",
        "param": None,
        "code": "all_providers_failed",
    }
