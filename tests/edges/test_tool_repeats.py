"""An answer that fails after tools had their effects: nobody is told that the request may be sent again by itself."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.edges.errors import info_of, reason_of
from tests.edges.observed import LIMIT_S, spec
from tests.edges.test_server_tools import World, world
from tests.edges.test_tool_loops import said
from tests.faults.waiting import until
from tests.support.upstream import Exchange, Hang, Step, whole
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import ToolOptions

pytestmark = pytest.mark.once

THROTTLED = whole({"error": {}}, 429, "retry-after: 30")


async def asked(found: World, *, idempotent: bool = False) -> grpc.aio.AioRpcError:
    """How a unary answer with a tool fails, for a client that repeats nothing."""
    tool = found.server_tool("charge", idempotent=idempotent)
    request = CompleteUnaryRequest(spec=spec("m", tool_options=ToolOptions(tools=[tool])))
    address = found.running.service.grpc_address
    async with grpc.aio.insecure_channel(address, [("grpc.enable_retries", 0)]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await CompletionServiceStub(channel).CompleteUnary(request, timeout=LIMIT_S)
    return caught.value


def advice(error: grpc.aio.AioRpcError) -> tuple[str, str | None]:
    """What is said of sending it again: to programs, and to the client's library."""
    trailers = dict(error.trailing_metadata() or ())
    pushback = trailers.get("grpc-retry-pushback-ms")
    return info_of(error).metadata["retryable"], str(pushback) if pushback is not None else None


def model_of(last: Callable[[Exchange], list[Step]]) -> Callable[[int, Exchange], list[Step]]:
    """Calls the tool, and then goes on like this."""

    def script(number: int, exchange: Exchange) -> list[Step]:
        if exchange.json["messages"][-1]["role"] == "tool":
            return last(exchange)
        return said(exchange, [("charge", "{}")], "")

    return script


async def test_where_all_are_throttled_after_an_effect_it_may_not_be_sent_again():
    async with world(model_of(lambda _: list(THROTTLED))) as found:
        error = await asked(found)

    assert reason_of(error)[1] == "RATE_LIMITED"
    assert len(found.tool.exchanges) == 1
    assert advice(error) == ("false", "-1")


async def test_where_the_server_goes_down_after_an_effect_it_may_not_be_sent_again():
    async with world(model_of(lambda _: [Hang()]), server={"drain_s": 2.2}) as found:
        asking = asyncio.create_task(asked(found))
        await until(lambda: len(found.model.exchanges) == 2, "the second turn")
        draining = asyncio.create_task(found.running.service.drain())
        error = await asking
        await draining

    assert reason_of(error)[1] == "DRAINING"
    assert advice(error) == ("false", "-1")


@pytest.mark.parametrize("is_called", [True, False], ids=["idempotent", "no tool called"])
async def test_without_an_effect_it_may_be_sent_again(is_called):
    def script(number: int, exchange: Exchange) -> list[Step]:
        first: Any = model_of(lambda _: list(THROTTLED))
        return first(number, exchange) if is_called else list(THROTTLED)

    async with world(script) as found:
        error = await asked(found, idempotent=True)

    assert reason_of(error)[1] == "RATE_LIMITED"
    assert advice(error)[0] == "true"
