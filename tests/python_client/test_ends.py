"""Streams that are read after their end, and times that are none or beyond all calls."""

import asyncio
import math

import grpc
import pytest

from tests.conformance.cases import Case, Expect, Step
from tests.conformance.server import gateway_in_thread
from tests.python_client.events import completed, text_delta
from tests.python_client.scripted import Failure, Hold
from trunkline import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    InternalError,
    NotFound,
    text,
)


async def test_a_stream_that_has_failed_goes_on_saying_how(gateway):
    gateway.plays([text_delta("Hé"), Failure(grpc.StatusCode.NOT_FOUND)])
    async with AsyncClient(gateway.target) as client, client.stream("Hi") as stream:
        for _ in range(2):
            with pytest.raises(NotFound):
                await stream.completion()

        assert text(stream.snapshot()) == "Hé"


async def test_nothing_is_read_past_a_message_that_is_none():
    script = [Step(text="a"), Step(raw_hex="42ff"), Step(text="b"), Step(done={})]
    with gateway_in_thread() as gateway:
        gateway.play(Case("hole", {}, Expect(), server=[script]))
        target, headers = f"127.0.0.1:{gateway.port}", {"x-case": "hole"}
        async with AsyncClient(target, metadata=headers) as client, client.stream("Hi") as stream:
            for _ in range(2):
                with pytest.raises(InternalError):
                    await stream.completion()

            assert text(stream.snapshot()) == "a"
        with Client(target, metadata=headers) as other, other.stream("Hi") as blocking:
            for _ in range(2):
                with pytest.raises(InternalError):
                    await asyncio.to_thread(blocking.completion)

            assert text(blocking.snapshot()) == "a"


async def test_a_stream_whose_reader_was_cancelled_was_not_cut_off(gateway):
    gateway.plays([text_delta("Hé"), Hold()])
    async with AsyncClient(gateway.target) as client, client.stream("Hi") as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stream.completion()

        with pytest.raises(Cancelled):
            await anext(stream)


@pytest.mark.parametrize("timeout_s", [0, -1])
async def test_no_time_at_all_is_a_deadline(gateway, timeout_s):
    gateway.plays([completed()])

    async with AsyncClient(gateway.target, default_timeout_s=timeout_s) as client:
        with pytest.raises(DeadlineExceeded):
            await client.stream("Hi").completion()
    with Client(gateway.target) as blocking, pytest.raises(DeadlineExceeded):
        blocking.stream("Hi", timeout_s=timeout_s).completion()

    assert gateway.calls == []


@pytest.mark.parametrize("timeout_s", [1e12, math.inf])
async def test_more_time_than_the_library_can_count_is_no_time_that_has_passed(gateway, timeout_s):
    gateway.plays([text_delta("Hé"), completed()])

    async with AsyncClient(gateway.target, default_timeout_s=timeout_s) as client:
        assert text(await client.stream("Hi").completion()) == "Hé"
    with Client(gateway.target) as blocking:
        assert text(blocking.stream("Hi", timeout_s=timeout_s).completion()) == "Hé"
