"""Leaving a stream, and streams that start again."""

import asyncio
import threading

import pytest

from tests.python_client.events import completed, reset, routed, text_delta
from tests.python_client.scripted import WAIT_S, Gateway, Hold
from trunkline import AsyncClient, Cancelled, Client, StreamInterrupted, text


async def until_called(gateway: Gateway) -> None:
    assert await asyncio.to_thread(gateway.is_called.wait, WAIT_S)


async def has_ended(gateway: Gateway) -> bool:
    return await asyncio.to_thread(gateway.calls[0].ended.wait, WAIT_S)


async def test_leaving_the_block_early_cancels_the_call(gateway, client):
    gateway.plays([text_delta("Hé"), Hold()])

    assert await client.first_event_only("Hi") == text_delta("Hé")

    assert await has_ended(gateway)


async def test_a_stream_that_is_dropped_is_cancelled(gateway, client):
    gateway.plays([text_delta("Hé"), Hold()])

    await client.dropped("Hi")

    assert await has_ended(gateway)


async def test_text_that_is_left_early_cancels_the_call(gateway):
    gateway.plays([text_delta("Hé"), Hold()])
    async with AsyncClient(gateway.target) as client:
        async with client.stream("Hi") as stream:
            async for _ in stream.text_deltas():
                break

        assert await has_ended(gateway)


async def test_a_stream_goes_on_where_it_was_left(gateway):
    gateway.plays([text_delta("Hé"), text_delta("llo"), completed()])
    async with AsyncClient(gateway.target) as client, client.stream("Hi") as stream:
        await anext(stream)

        assert text(stream.snapshot()) == "Hé"
        assert [piece async for piece in stream.text_deltas()] == ["llo"]
        assert text(await stream.completion()) == "Héllo"


def test_a_blocking_stream_goes_on_where_it_was_left(gateway):
    gateway.plays([text_delta("Hé"), text_delta("llo"), completed()])
    with Client(gateway.target) as client, client.stream("Hi") as stream:
        next(stream)

        assert text(stream.snapshot()) == "Hé"
        assert list(stream.text_deltas()) == ["llo"]
        assert text(stream.completion()) == "Héllo"


@pytest.mark.parametrize(
    "ask",
    [lambda client: client.complete("Hi"), lambda client: client.stream("Hi").completion()],
    ids=["unary", "stream"],
)
async def test_a_cancelled_task_cancels_its_call_and_stays_cancelled(gateway, ask):
    gateway.plays([Hold()])
    async with AsyncClient(gateway.target) as client:
        task = asyncio.create_task(ask(client))
        await until_called(gateway)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert await has_ended(gateway)


async def test_closing_a_stream_that_another_task_reads_is_an_error_there(gateway):
    gateway.plays([Hold()])
    async with AsyncClient(gateway.target) as client:
        stream = client.stream("Hi")
        task = asyncio.create_task(stream.completion())
        await until_called(gateway)

        await stream.aclose()

        with pytest.raises(Cancelled):
            await task
        assert await has_ended(gateway)


def test_closing_a_stream_that_another_thread_reads_is_an_error_there(gateway):
    gateway.plays([text_delta("Hé"), Hold()])
    with Client(gateway.target) as client:
        stream = client.stream("Hi")
        next(stream)
        closer = threading.Thread(target=stream.close)
        closer.start()

        with pytest.raises(Cancelled):
            stream.completion()

        closer.join()


async def test_closing_the_client_ends_what_runs(gateway):
    gateway.plays([Hold()])
    client = AsyncClient(gateway.target)
    task = asyncio.create_task(client.complete("Hi"))
    await until_called(gateway)

    await client.close()

    with pytest.raises(Cancelled):
        await task


async def test_text_that_was_handed_out_is_never_replaced_silently(gateway, client):
    gateway.plays([routed(), text_delta("One"), reset(), routed(), text_delta("Two"), completed()])

    with pytest.raises(StreamInterrupted):
        await client.text_deltas("Hi")


async def test_a_reset_before_text_is_no_matter_for_the_text(gateway, client):
    again = [routed(), reset(), routed(), text_delta("Two"), completed()]
    gateway.plays(again)

    assert await client.text_deltas("Hi") == ["Two"]


async def test_a_reset_is_folded_away(gateway, client):
    gateway.plays([routed(), text_delta("One"), reset(), routed(), text_delta("Two"), completed()])

    _, error, completion = await client.events("Hi")

    assert (error, text(completion)) == (None, "Two")
