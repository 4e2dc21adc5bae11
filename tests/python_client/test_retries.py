"""The published retry policy: before an answer begins, and never after."""

import grpc
import pytest

from tests.python_client.events import completed, routed, text_delta
from tests.python_client.scripted import Failure, error_info
from trunkline import AllProvidersFailed, Unavailable, text
from trunkline.v1.catalog_service_pb2 import GetModelResponse, Model
from trunkline.v1.completion_service_pb2 import CompleteUnaryResponse

UNAVAILABLE = Failure(grpc.StatusCode.UNAVAILABLE)


async def test_a_stream_is_retried_until_it_begins(gateway, client):
    gateway.plays([UNAVAILABLE], [UNAVAILABLE], [text_delta("Hé"), completed()])

    _, error, completion = await client.events("Hi")

    assert (error, text(completion), len(gateway.calls)) == (None, "Hé", 3)


async def test_a_unary_call_is_retried_and_given_up_after_three(gateway, client):
    gateway.plays([UNAVAILABLE])

    with pytest.raises(Unavailable):
        await client.complete("Hi")

    assert len(gateway.calls) == 3


async def test_a_large_request_is_retried_too(gateway, client):
    gateway.plays([UNAVAILABLE], [CompleteUnaryResponse()])

    await client.complete("x" * 4_000_000)

    assert len(gateway.calls) == 2


async def test_the_catalog_is_retried(gateway, client):
    gateway.plays([UNAVAILABLE], [UNAVAILABLE], [UNAVAILABLE], [GetModelResponse(model=Model())])

    await client.get_model("m")

    assert len(gateway.calls) == 4


async def test_nothing_is_retried_after_an_event(gateway, client):
    gateway.plays([routed(), UNAVAILABLE], [text_delta("other"), completed()])

    seen, error, _ = await client.events("Hi")

    assert (seen, type(error), len(gateway.calls)) == ([routed()], Unavailable, 1)


async def test_a_gateway_that_has_tried_everybody_is_not_asked_again(gateway, client):
    failed = Failure(
        grpc.StatusCode.UNAVAILABLE,
        details=[error_info("ALL_PROVIDERS_FAILED")],
        trailing=[("grpc-retry-pushback-ms", "-1")],
    )
    gateway.plays([failed])

    with pytest.raises(AllProvidersFailed):
        await client.complete("Hi")

    assert len(gateway.calls) == 1


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL]
)
async def test_other_codes_are_not_retried(gateway, client, code):
    gateway.plays([Failure(code)])

    await client.events("Hi")

    assert len(gateway.calls) == 1
