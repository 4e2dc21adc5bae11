"""What happens to batches on their way to a socket: order and content are kept."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    Heartbeat,
    ReasoningDelta,
    RouteSelected,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
)
from trunkline.v1.completion_pb2 import TokenLogprob
from trunkline.v1.completion_service_pb2 import StreamOptions
from trunkline_server.core.errors import InvalidRequest, Overloaded
from trunkline_server.edges.grpc.pacing import Batch, check, coalesce, needs_pacing, paced

STARTED = CompleteResponse(started=StreamStarted(completion_id="c"))
ROUTE = CompleteResponse(route_selected=RouteSelected())
FINISHED = CompleteResponse(choice_finished=ChoiceFinished())
HEARTBEAT = CompleteResponse(heartbeat=Heartbeat())
LIMIT_S = 10.0


def text(piece: str, part: int = 0, choice: int = 0) -> CompleteResponse:
    """A delta of text."""
    return CompleteResponse(text_delta=TextDelta(text=piece, part_index=part, choice_index=choice))


def likely(piece: str) -> CompleteResponse:
    """A delta with a log-probability."""
    logprobs = [TokenLogprob(token=piece, logprob=-1)]
    return CompleteResponse(text_delta=TextDelta(text=piece, logprobs=logprobs))


EVENTS = st.lists(
    st.one_of(
        st.builds(text, st.text(max_size=3), st.integers(0, 1), st.integers(0, 1)),
        st.builds(likely, st.text("ab", min_size=1, max_size=2)),
        st.sampled_from(
            [
                FINISHED,
                CompleteResponse(reasoning_delta=ReasoningDelta(text="r")),
                CompleteResponse(tool_call_delta=ToolCallDelta(arguments_json="{")),
            ]
        ),
    ),
    max_size=20,
)


def seconds(value: float) -> Duration:
    """A duration."""
    return Duration(seconds=int(value), nanos=round(value % 1 * 1e9))


def unrolled(events: Batch) -> list[tuple[int, int, str] | bytes]:
    """Every letter of text with its place, every other event as it is."""
    found: list[tuple[int, int, str] | bytes] = []
    for event in events:
        delta = event.text_delta
        if event.HasField("text_delta") and not delta.logprobs:
            found += [(delta.choice_index, delta.part_index, letter) for letter in delta.text]
        else:
            found.append(event.SerializeToString())
    return found


@given(EVENTS)
def test_merging_keeps_order_and_content(events):
    before = unrolled(events)

    merged = coalesce(events)

    assert unrolled(merged) == before
    assert len(merged) <= len(events)


def test_neighbours_of_one_part_become_one():
    found = coalesce([text("a"), text("b"), FINISHED, text("c"), text("d", 1), text("e", 1)])

    assert found == [text("ab"), FINISHED, text("c"), text("de", 1)]


def test_log_probabilities_keep_their_deltas_apart():
    events = [text("a"), likely("b"), likely("c"), text("d")]

    assert coalesce(events) == events


@pytest.mark.parametrize("events", [[], [text("a")], [FINISHED]], ids=["none", "text", "other"])
def test_less_than_two_events_are_handed_on_as_they_are(events):
    assert coalesce(events) is events


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (StreamOptions(heartbeat_interval=seconds(0.1)), None),
        (StreamOptions(heartbeat_interval=seconds(300)), None),
        (StreamOptions(heartbeat_interval=seconds(0.09)), "stream_options.heartbeat_interval"),
        (StreamOptions(heartbeat_interval=seconds(0)), "stream_options.heartbeat_interval"),
        (StreamOptions(heartbeat_interval=seconds(300.1)), "stream_options.heartbeat_interval"),
        (StreamOptions(coalesce_window=seconds(0)), None),
        (StreamOptions(coalesce_window=seconds(5)), None),
        (StreamOptions(coalesce_window=seconds(5.1)), "stream_options.coalesce_window"),
        (StreamOptions(coalesce_window=Duration(seconds=-1)), "stream_options.coalesce_window"),
    ],
    ids=range(9),
)
def test_options_have_limits(options, field):
    found = None
    try:
        check(options)
    except InvalidRequest as error:
        found = error.violations[0].field

    assert found == field


def test_only_what_was_asked_for_is_paced():
    assert not needs_pacing(StreamOptions())
    assert not needs_pacing(StreamOptions(coalesce_window=seconds(0)))
    assert needs_pacing(StreamOptions(coalesce_window=seconds(0.1)))
    assert needs_pacing(StreamOptions(heartbeat_interval=seconds(1)))


async def collected(batches: AsyncGenerator[Batch, None], options: StreamOptions) -> list[Batch]:
    """All that comes out, in bounded time."""
    async with asyncio.timeout(LIMIT_S), aclosing(paced(batches, options)) as found:
        return [batch async for batch in found]


async def test_heartbeats_fill_the_silence_before_content_and_no_other():
    silent = asyncio.Event()

    async def batches() -> AsyncGenerator[Batch, None]:
        yield [STARTED]
        await silent.wait()
        yield [ROUTE, text("a")]
        await asyncio.sleep(0.25)
        yield [FINISHED]

    options = StreamOptions(heartbeat_interval=seconds(0.1))
    found: list[Batch] = []
    async with asyncio.timeout(LIMIT_S), aclosing(paced(batches(), options)) as stream:
        async for batch in stream:
            found.append(batch)
            if found.count([HEARTBEAT]) == 2:
                silent.set()

    assert found == [[STARTED], [HEARTBEAT], [HEARTBEAT], [ROUTE, text("a")], [FINISHED]]


async def test_a_window_gathers_text_and_lets_the_rest_through():
    async def batches() -> AsyncGenerator[Batch, None]:
        yield [ROUTE, text("a")]
        for piece in "bcd":
            yield [text(piece)]
        yield [FINISHED]

    found = await collected(batches(), StreamOptions(coalesce_window=seconds(5)))

    assert [coalesce(batch) for batch in found] == [[ROUTE, text("a")], [text("bcd"), FINISHED]]


async def test_a_window_ends_with_its_time_and_loses_nothing():
    go_on = asyncio.Event()

    async def batches() -> AsyncGenerator[Batch, None]:
        yield [text("a")]
        yield [text("b")]
        await go_on.wait()
        yield [text("c")]

    options = StreamOptions(coalesce_window=seconds(0.05))
    found: list[Batch] = []
    async with asyncio.timeout(LIMIT_S), aclosing(paced(batches(), options)) as stream:
        async for batch in stream:
            found.append(batch)
            go_on.set()

    assert found == [[text("a"), text("b")], [text("c")]]


async def test_an_error_comes_after_the_text_that_was_gathered():
    async def batches() -> AsyncGenerator[Batch, None]:
        yield [text("a")]
        yield [text("b")]
        raise Overloaded

    found: list[Batch] = []

    async def read() -> None:
        async with aclosing(paced(batches(), StreamOptions(coalesce_window=seconds(5)))) as stream:
            async for batch in stream:
                found.append(batch)  # noqa: PERF401 - those before the error count

    with pytest.raises(Overloaded):
        await asyncio.wait_for(read(), LIMIT_S)

    assert found == [[text("a"), text("b")]]


async def test_leaving_early_closes_what_is_read():
    closed = asyncio.Event()

    async def batches() -> AsyncGenerator[Batch, None]:
        try:
            while True:
                yield [text("a")]
                await asyncio.sleep(0)
        finally:
            closed.set()

    options = StreamOptions(heartbeat_interval=seconds(1))
    async with aclosing(paced(batches(), options)) as stream:
        await anext(stream)

    assert closed.is_set()


async def test_a_reader_that_pauses_holds_the_upstream_back():
    made = 0

    async def batches() -> AsyncGenerator[Batch, None]:
        nonlocal made
        while True:
            made += 1
            yield [text("a")]

    options = StreamOptions(heartbeat_interval=seconds(1))
    async with aclosing(paced(batches(), options)) as stream:
        await anext(stream)
        for _ in range(200):
            await asyncio.sleep(0)

    assert made < 30
