"""What a gRPC caller sees of a stream: which events, in which order, and when."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2

from tests.edges.errors import reason_of
from tests.edges.observed import LIMIT_S, observed, spec, stream
from tests.support.service import model, provider, service_over
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Step,
    answer,
    delta,
    event,
    finish,
    head,
    hello,
    upstream,
    usage,
    whole,
)
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import Cost, Usage
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    StreamOptions,
)
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import RoutingConstraints, Tool, ToolOptions
from trunkline.v1.message_pb2 import Message, Part, Role, ToolCall
from trunkline_server.app import Service

ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
LAST: list[Step] = [event(finish()), event(usage()), event("[DONE]"), END]
FAILING = whole({"error": {"message": "no"}}, 500)


def seconds(value: float) -> Duration:
    """A duration."""
    return Duration(nanos=round(value * 1e9))


def tool_call(arguments: str, **more: Any) -> bytes:
    """A piece of a tool call."""
    call = {"index": 0, "function": {"arguments": arguments, **more.pop("function", {})}, **more}
    return event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})


CALLS: list[Step] = [
    head(),
    tool_call("", id="c1", type="function", function={"name": "f"}),
    tool_call('{"a"'),
    tool_call(": 1}"),
    event(finish("tool_calls")),
    event(usage()),
    event("[DONE]"),
    END,
]


def local(service: Service) -> Any:
    """The contract without sockets: only the service itself minds the deadline."""
    channel: Any = service.channel
    return CompletionServiceStub(channel)


async def test_a_plain_stream_says_who_answers_what_it_says_and_how_it_ended():
    async with upstream(answer("Hel", "lo")) as good, service_over(good.url) as service:
        found = await stream(service, spec())

    kinds = [kind for kind in found.kinds if kind != "text_delta"]
    assert kinds == ["started", "route_selected", "choice_finished", "completed"]
    assert found.kinds[2] == "text_delta"
    assert found.text == "Hello"
    assert found.code is grpc.StatusCode.OK


async def test_sequence_numbers_have_no_gaps_however_many_deltas_are_merged():
    steps: list[Step] = [head()]
    for number in range(60):
        steps += [event(delta(f"{number} ")) * (number % 3 + 1), *([Pause(0.001)] * (number % 2))]
    async with upstream([*steps, *LAST]) as good, service_over(good.url) as service:
        found = await stream(service, spec())

    assert [e.sequence for e in found.events] == list(range(1, len(found.events) + 1))
    assert found.text == "".join(f"{number} " * (number % 3 + 1) for number in range(60))


async def test_nothing_is_sent_before_content_headers_included():
    steps: list[Step] = [head(), ROLE, event({"choices": []}), Pause(0.4), event(delta("Hi"))]
    loop = asyncio.get_running_loop()
    async with (
        upstream([*steps, *LAST]) as good,
        service_over(good.url) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        call = CompletionServiceStub(channel).Complete(
            CompleteRequest(spec=spec()), timeout=LIMIT_S
        )
        headers = asyncio.ensure_future(call.initial_metadata())
        await asyncio.wait([headers], timeout=0.3)
        came_early = headers.done()
        await headers
        after_s = loop.time() - good.exchanges[0].started_at_s
        events = [event async for event in call]

    assert not came_early
    assert after_s >= 0.39
    assert [e.WhichOneof("event") for e in events][:3] == [
        "started",
        "route_selected",
        "text_delta",
    ]


async def test_the_head_of_a_stream_names_who_answers():
    async with (
        upstream(FAILING) as a,
        upstream(hello) as b,
        service_over(a.url, b.url) as service,
    ):
        found = await stream(service, spec(), metadata=(("x-request-id", "my-own-id_1"),))

    limits = {name for name in dict(found.head) if "ratelimit" in name}
    assert len(limits) == 8
    assert {name: value for name, value in found.head if name not in limits} == {
        "x-request-id": "my-own-id_1",
        "trunkline-provider": "b",
        "trunkline-model": "m-b",
        "trunkline-failover-count": "1",
        "trunkline-route": "all",
    }


@pytest.mark.parametrize("bad", ["short", "x" * 65, "with space", "ümlaut-in-it"[1:] + "/"])
async def test_a_bad_request_id_is_replaced(bad):
    async with upstream(hello) as good, service_over(good.url) as service:
        found = await stream(service, spec(), metadata=(("x-request-id", bad),))

    given = dict(found.head)["x-request-id"]
    assert given.startswith("req_")
    assert found.events[0].started.request_id == given


async def test_with_a_heartbeat_the_stream_starts_at_once_and_is_kept_awake():
    gate = asyncio.Event()

    async def script(exchange: Exchange) -> Sequence[Step]:
        await gate.wait()
        return answer("Hi")

    options = StreamOptions(heartbeat_interval=seconds(0.1))
    kinds = []
    async with (
        upstream(script) as good,
        service_over(good.url) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        call = CompletionServiceStub(channel).Complete(
            CompleteRequest(spec=spec(), stream_options=options), timeout=LIMIT_S
        )
        async for response in call:
            kinds.append(response.WhichOneof("event"))
            if kinds.count("heartbeat") == 3:
                gate.set()
        metadata = dict(await call.initial_metadata())

    beats = kinds.count("heartbeat")
    assert beats >= 3
    assert kinds[: beats + 1] == ["started", *["heartbeat"] * beats]
    assert kinds[beats + 1 :] == ["route_selected", "text_delta", "choice_finished", "completed"]
    assert "trunkline-provider" not in metadata


async def test_an_error_after_heartbeats_alone_is_that_error():
    options = StreamOptions(heartbeat_interval=seconds(0.1))
    async with upstream(FAILING) as bad, service_over(bad.url) as service:
        found = await stream(service, spec(), options)

    assert found.kinds[0] == "started"
    assert "interrupted" not in found.kinds
    assert found.code is grpc.StatusCode.UNAVAILABLE


async def test_a_window_merges_deltas_that_come_within_it():
    pieces = [f"{number} " for number in range(20)]
    steps = [step for piece in pieces for step in (event(delta(piece)), Pause(0.005))]
    options = StreamOptions(coalesce_window=seconds(0.9))
    async with upstream([head(), *steps, *LAST]) as good, service_over(good.url) as service:
        found = await stream(service, spec(), options)

    assert found.text == "".join(pieces)
    assert found.kinds.count("text_delta") <= 3
    assert found.kinds[-2:] == ["choice_finished", "completed"]


async def test_attempts_that_failed_are_told_when_asked_for_and_not_else():
    async with (
        upstream(FAILING) as a,
        upstream(hello) as b,
        service_over(a.url, b.url) as service,
    ):
        asked = await stream(service, spec(), StreamOptions(include_attempts=True))
        plain = await stream(service, spec())

    assert asked.kinds[:3] == ["started", "attempt_failed", "route_selected"]
    assert "attempt_failed" not in plain.kinds
    failed = asked.events[1].attempt_failed
    info = error_details_pb2.ErrorInfo()
    assert failed.attempt.error.details[0].Unpack(info)
    assert failed.will_failover
    assert (failed.attempt.provider, failed.attempt.http_status) == ("a", 500)
    assert (failed.attempt.error.code, info.reason) == (
        code_pb2.UNAVAILABLE,
        "PROVIDER_UNAVAILABLE",
    )


async def test_usage_is_told_before_the_end_when_asked_for():
    async with upstream(hello) as good, service_over(good.url) as service:
        asked = await stream(service, spec(), StreamOptions(include_usage_updates=True))
        plain = await stream(service, spec())

    counts = Usage(input_tokens=9, output_tokens=4, total_tokens=13)
    assert asked.kinds[-2:] == ["usage_update", "completed"]
    assert asked.events[-2].usage_update.usage == counts
    assert asked.events[-1].completed.completion.usage == counts
    assert "usage_update" not in plain.kinds


async def test_what_was_used_is_priced():
    priced = [model("m", "a", input_price=1.0, output_price=2.5)]
    async with (
        upstream(hello) as good,
        observed(providers=[provider("a", good.url)], models=priced) as running,
    ):
        found = await stream(running.service, spec("m"))

    cost = found.events[-1].completed.completion.usage.cost
    assert cost == Cost(amount_nanos=9_000 + 10_000, currency_code="USD")


async def test_the_last_event_repeats_the_message_when_asked_for():
    async with upstream(answer("Hel", "lo")) as good, service_over(good.url) as service:
        asked = await stream(service, spec(), StreamOptions(include_final_messages=True))
        plain = await stream(service, spec())

    message_ = Message(role=Role.ROLE_ASSISTANT, parts=[Part(text="Hello")])
    assert asked.events[-1].completed.completion.choices[0].message == message_
    assert not plain.events[-1].completed.completion.choices[0].HasField("message")


@pytest.mark.parametrize("buffers", [True, False])
async def test_tool_calls_come_whole_when_asked_for(buffers):
    asking = spec(tool_options=ToolOptions(tools=[Tool(name="f")]))
    options = StreamOptions(buffer_tool_arguments=buffers)
    async with upstream(CALLS) as good, service_over(good.url) as service:
        found = await stream(service, asking, options)

    deltas = [e.tool_call_delta for e in found.events if e.HasField("tool_call_delta")]
    (completed,) = (e.part_completed for e in found.events if e.HasField("part_completed"))
    assert completed.part.tool_call == ToolCall(id="c1", name="f", arguments_json='{"a": 1}')
    assert "".join(d.arguments_json for d in deltas) == ("" if buffers else '{"a": 1}')
    assert bool(deltas) is not buffers


@pytest.mark.parametrize("whole_", [True, False], ids=["unary", "stream"])
async def test_the_callers_deadline_ends_a_silent_request_and_its_upstream(whole_):
    async with (
        upstream([Hang()]) as silent,
        observed(providers=[provider("a", silent.url)], models=[model("m", "a")]) as running,
    ):
        address = running.service.grpc_address
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = CompletionServiceStub(channel)
            if whole_:
                call = stub.CompleteUnary(CompleteUnaryRequest(spec=spec("m")), timeout=0.4)
            else:
                call = stub.Complete(CompleteRequest(spec=spec("m")), timeout=0.4)
            code = await call.code()
        await asyncio.wait_for(silent.exchanges[0].closed.wait(), LIMIT_S)
        line = await running.request()

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert line["reason"] == "DEADLINE_EXCEEDED"


async def test_a_deadline_that_passes_in_silence_is_told_with_its_reason():
    async with upstream([Hang()]) as silent, service_over(silent.url) as service:
        stub = local(service)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CompleteUnary(CompleteUnaryRequest(spec=spec()), timeout=0.3)

    assert reason_of(caught.value) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_deadline_that_passes_in_the_middle_interrupts_what_was_begun():
    events: list[CompleteResponse] = []
    steps: list[Step] = [head(), event(delta("Hel")), Hang()]

    async def read() -> None:
        async for response in stub.Complete(CompleteRequest(spec=spec()), timeout=0.5):
            events.append(response)  # noqa: PERF401 - those before the error count

    async with upstream(steps) as stuck, service_over(stuck.url) as service:
        stub = local(service)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(read(), LIMIT_S)

    kinds = [response.WhichOneof("event") for response in events]
    assert kinds == ["started", "route_selected", "text_delta", "interrupted"]
    assert reason_of(caught.value) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    interrupted = events[-1].interrupted
    assert interrupted.error.code == code_pb2.DEADLINE_EXCEEDED
    assert interrupted.usage.estimated
    assert [attempt.provider for attempt in interrupted.attempts] == ["a"]


async def test_a_deadline_leaves_time_for_the_next_candidate():
    async with (
        upstream([Hang()]) as silent,
        upstream(hello) as good,
        service_over(silent.url, good.url) as service,
    ):
        found = await stream(service, spec(), timeout_s=5.5)

    assert found.text == "Hello"
    assert found.events[-1].completed.completion.route.provider == "b"


@pytest.mark.parametrize("streams", [True, False], ids=["stream", "unary"])
async def test_callers_can_limit_the_silence_before_the_first_token(streams):
    asking = spec(constraints=RoutingConstraints(first_token_timeout=seconds(0.2)))
    async with (
        upstream([head(), ROLE, Hang()]) as silent,
        upstream(hello) as good,
        service_over(silent.url, good.url) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        if streams:
            completion = (await stream(service, asking)).events[-1].completed.completion
        else:
            unary = CompletionServiceStub(channel).CompleteUnary
            response = await unary(CompleteUnaryRequest(spec=asking), timeout=LIMIT_S)
            completion = response.completion

    assert [attempt.provider for attempt in completion.attempts] == ["a", "b"]
    assert silent.exchanges[0].closed.is_set()


async def test_a_unary_answer_starts_again_elsewhere_when_it_breaks_off():
    cut: list[Step] = [b"HTTP/1.1 200 X\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{"]
    async with (
        upstream(cut) as broken,
        upstream(hello) as good,
        service_over(broken.url, good.url) as service,
        grpc.aio.insecure_channel(service.grpc_address) as channel,
    ):
        unary = CompletionServiceStub(channel).CompleteUnary
        response = await unary(CompleteUnaryRequest(spec=spec()), timeout=LIMIT_S)

    assert [a.provider for a in response.completion.attempts] == ["a", "b"]
