"""What reaches the gateway, and what comes back."""

import asyncio
from typing import cast

import pytest

from tests.python_client.events import (
    answer,
    call_delta,
    call_part,
    completed,
    finished,
    part_completed,
    routed,
    said,
    started,
    text_delta,
)
from tests.python_client.scripted import WAIT_S, Hold
from trunkline import (
    DeadlineExceeded,
    arguments,
    function_tool,
    system,
    text,
    tool_calls,
    tool_result,
    turns,
    user,
)
from trunkline.v1.catalog_service_pb2 import (
    GetModelRequest,
    GetModelResponse,
    ListModelsRequest,
    ListModelsResponse,
    Model,
)
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import (
    FINISH_REASON_STOP,
    FINISH_REASON_TOOL_CALLS,
    Choice,
    Completion,
    FinishReason,
    Usage,
)
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    CompleteUnaryResponse,
    PreviewRouteRequest,
    PreviewRouteResponse,
    RouteCandidate,
    StreamOptions,
)
from trunkline.v1.completion_spec_pb2 import CompletionSpec, SamplingOptions

HELLO = [started(), routed(), text_delta("Hé"), text_delta("llo"), finished(), completed()]


async def test_complete_returns_the_gateways_own_completion(gateway, client):
    gateway.plays([CompleteUnaryResponse(completion=answer("Hello"))])

    completion = await client.complete("Hi", model="m", temperature=0, idempotency_key="once")

    assert (completion, text(completion)) == (answer("Hello"), "Hello")
    assert gateway.calls[0].request == CompleteUnaryRequest(
        spec=CompletionSpec(
            model="m", messages=[user("Hi")], sampling=SamplingOptions(temperature=0)
        ),
        idempotency_key="once",
    )


async def test_stream_yields_every_event_and_folds_to_the_whole_answer(gateway, client):
    final = Completion(id="cmpl_1", usage=Usage(output_tokens=2))
    events = [*HELLO[:-1], completed(final)]
    gateway.plays(events)

    seen, error, completion = await client.events("Hi")

    assert (seen, error) == (events, None)
    assert text(completion) == "Héllo"
    assert completion.choices[0].finish_reason == FINISH_REASON_STOP
    assert completion.usage == final.usage
    assert completion.route.provider == "p"


async def test_text_deltas_are_the_text_alone(gateway, client):
    gateway.plays(HELLO)

    assert await client.text_deltas([system("Be brief."), user("Hi")]) == ["Hé", "llo"]


async def test_a_spec_and_stream_options_are_sent_as_they_are(gateway, client):
    spec = CompletionSpec(model="m", messages=[user("Hi")], mode="fast")
    wanted = StreamOptions(include_attempts=True)
    gateway.plays(HELLO)

    await client.events(spec=spec, stream_options=wanted)

    assert gateway.calls[0].request == CompleteRequest(spec=spec, stream_options=wanted)


async def test_a_conversation_with_parallel_tools(gateway, client):
    calls = [call_part("a", "add", '{"x":1}'), call_part("b", "add", '{"x":2}')]
    gateway.plays(
        [
            routed(),
            text_delta("Let me see.", part=0),
            call_delta('{"x"', part=1, call_id="a", name="add"),
            call_delta('{"x":', part=2, call_id="b", name="add", index=1),
            call_delta(":1}", part=1),
            call_delta("2}", part=2, index=1),
            part_completed(calls[0], 1),
            part_completed(calls[1], 2),
            finished(FINISH_REASON_TOOL_CALLS),
            completed(),
        ],
        HELLO,
    )
    tool = function_tool("add", "Adds one.", {"type": "object", "properties": {"x": {}}})

    _, _, asked = await client.events("Add", tools=[tool])
    results = [tool_result(call, str(arguments(call)["x"] + 1)) for call in tool_calls(asked)]
    await client.events([user("Add"), *turns(asked), *results], tools=[tool])

    assert gateway.calls[1].request.spec.messages == [
        user("Add"),
        said("Let me see.", *calls),
        tool_result(calls[0].tool_call, "2"),
        tool_result(calls[1].tool_call, "3"),
    ]


async def test_preview_route_asks_for_the_same_spec(gateway, client):
    preview = PreviewRouteResponse(candidates=[RouteCandidate(provider="p", eligible=True)])
    gateway.plays([preview])

    assert await client.preview_route("Hi", model="auto") == preview
    assert gateway.calls[0].request == PreviewRouteRequest(
        spec=CompletionSpec(model="auto", messages=[user("Hi")])
    )


async def test_list_models_reads_all_pages(gateway, client):
    models = [Model(id="a"), Model(id="b"), Model(id="c")]
    gateway.plays(
        [ListModelsResponse(models=models[:2], next_page_token="more")],
        [ListModelsResponse(models=models[2:])],
    )

    assert await client.list_models(page_size=2) == models
    assert [call.request for call in gateway.calls] == [
        ListModelsRequest(page_size=2),
        ListModelsRequest(page_size=2, page_token="more"),
    ]


async def test_get_model_names_the_model(gateway, client):
    gateway.plays([GetModelResponse(model=Model(id="a/b"))])

    assert await client.get_model("a/b") == Model(id="a/b")
    assert gateway.calls[0].request == GetModelRequest(model_id="a/b")


async def test_headers_of_the_client_and_of_the_call_are_sent(gateway, connect):
    client = connect(gateway.target, api_key="sk-test", metadata={"X-Session-Id": "s"})
    gateway.plays([CompleteUnaryResponse()])

    await client.complete(
        "Hi",
        request_id="request-1",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate="vendor=1",
        metadata={"baggage": "a=b", "blob-bin": b"\x00\xff"},
    )

    expected = {
        "authorization": "Bearer sk-test",
        "x-session-id": "s",
        "x-request-id": "request-1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
        "baggage": "a=b",
        "blob-bin": b"\x00\xff",
    }
    assert expected.items() <= gateway.calls[0].metadata.items()


async def test_messages_of_20_mb_pass_both_ways(gateway, client):
    large = "x" * 20_000_000
    gateway.plays(
        [
            lambda request: CompleteUnaryResponse(
                completion=answer(request.spec.messages[0].parts[0].text)
            )
        ]
    )

    completion = await client.complete(large)

    assert text(completion) == large


async def test_a_deadline_reaches_the_gateway_and_ends_the_call(gateway, client):
    gateway.plays([Hold()])

    with pytest.raises(DeadlineExceeded) as raised:
        await client.complete("Hi", timeout_s=1.0)

    assert raised.value.reason == "DEADLINE_EXCEEDED"
    assert gateway.calls[0].time_remaining_s < 2
    assert await asyncio.to_thread(gateway.calls[0].ended.wait, WAIT_S)


async def test_a_deadline_ends_a_stream_after_what_came(gateway, client):
    gateway.plays([routed(), text_delta("Hé"), Hold()])

    seen, error, snapshot = await client.events("Hi", timeout_s=1.0)

    assert seen == [routed(), text_delta("Hé")]
    assert type(error) is DeadlineExceeded
    assert text(snapshot) == "Hé"


@pytest.mark.parametrize(
    ("options", "longest_s"),
    [({}, 600.0), ({"default_timeout_s": 30.0}, 30.0)],
    ids=["as published", "the client's own"],
)
async def test_without_a_timeout_of_its_own_a_call_has_the_default(
    gateway, connect, options, longest_s
):
    client = connect(gateway.target, **options)
    gateway.plays([CompleteUnaryResponse()])

    await client.complete("Hi")

    # On the wire a timeout has few digits, and is rounded up.
    assert abs(gateway.calls[0].time_remaining_s - longest_s) < 10


async def test_events_and_enum_values_of_a_newer_contract_are_let_through(gateway, client):
    unknown = CompleteResponse.FromString(b"\xfa\x07\x02\x08\x01")
    newer = cast("FinishReason.ValueType", 99)
    gateway.plays([routed(), unknown, text_delta("Hé"), finished(newer), completed()])

    seen, error, completion = await client.events("Hi")

    assert (len(seen), error) == (5, None)
    assert completion.choices == [
        Choice(message=said("Hé"), finish_reason=newer),
    ]
