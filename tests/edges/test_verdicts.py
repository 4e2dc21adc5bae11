"""Who is asked, and what callers are told, in the cases that are neither success nor plain failure."""

import pytest

from tests.support.service import service_over
from tests.support.upstream import END, Step, event, finish, head, hello, upstream, whole
from trunkline import AsyncClient, RateLimited, TrunklineError
from trunkline.v1.completion_pb2 import FinishReason

FILTERED: list[Step] = [head(), event(finish("content_filter")), event("[DONE]"), END]


async def test_a_filtered_answer_is_not_taken_to_the_next_provider():
    async with (
        upstream(FILTERED) as first,
        upstream(hello) as second,
        service_over(first.url, second.url) as service,
        AsyncClient(service.grpc_address) as client,
        client.stream("hi", model="all") as stream,
    ):
        completion = await stream.completion()

    assert completion.choices[0].finish_reason == FinishReason.FINISH_REASON_CONTENT_FILTER
    assert second.exchanges == []


@pytest.mark.usefixtures("no_chance")
async def test_a_provider_that_said_when_to_come_back_is_left_alone_until_then():
    throttled = whole({"error": {"message": "slow down"}}, 429, "retry-after: 60")
    async with (
        upstream(throttled) as only,
        service_over(only.url) as service,
        AsyncClient(service.grpc_address) as client,
    ):
        told = []
        for _ in range(3):
            with pytest.raises(RateLimited) as caught:
                await client.complete("hi", model="all")
            told.append(caught.value.retry_after_s)

    assert len(only.exchanges) == 1
    assert all(seconds is not None and 50 < seconds <= 60 for seconds in told)


async def test_counts_that_overflow_together_are_not_believed():
    counts = {
        "prompt_tokens": 900_000_000,
        "completion_tokens": 900_000_000,
        "total_tokens": 2_700_000_000,
        "completion_tokens_details": {"reasoning_tokens": 900_000_000},
    }
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"},
        "finish_reason": "stop",
    }
    body = {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "choices": [choice],
        "usage": counts,
    }
    async with (
        upstream(whole(body)) as only,
        service_over(only.url) as service,
        AsyncClient(service.grpc_address) as client,
    ):
        completion = await client.complete("hi", model="all")

    assert completion.usage.estimated
    assert completion.usage.output_tokens == 1


async def test_a_key_of_ours_that_was_refused_is_not_blamed_on_the_caller():
    failing = whole({"error": {"message": "no"}}, 401)
    async with (
        upstream(failing) as only,
        service_over(only.url) as service,
        AsyncClient(service.grpc_address) as client,
    ):
        with pytest.raises(TrunklineError) as first:
            await client.complete("hi", model="all")

    assert first.value.reason == "ALL_PROVIDERS_FAILED"
