"""What both edges show of an answer that broke off: the end of it, all of it again, or its continuation."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import openai
import pytest

from tests.edges.errors import reason_of
from tests.edges.observed import LIMIT_S, observed, spec, stream
from tests.support.service import model, provider, service_over
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Reset,
    Step,
    answer,
    delta,
    event,
    finish,
    head,
    upstream,
    usage,
)
from trunkline import AsyncClient
from trunkline.v1.completion_service_pb2 import CompleteRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import Recovery, RoutingConstraints

pytestmark = pytest.mark.once

SAID = "The quick brown fox "
CUT: list[Step] = [
    head(),
    event(delta("The quick ")),
    event(delta("brown fox ")),
    Pause(0.02),
    Reset(),
]
AGAIN = answer("Another ", "answer.")
CONTINUED = answer("quick brown fox", " jumps.")
ROUTE = {"id": "all", "candidates": ["m-a", "m-b"], "strategy": "ordered"}


def recovering(recovery: "Recovery.ValueType") -> RoutingConstraints:
    """What a caller says."""
    return RoutingConstraints(recovery=recovery)


async def test_restart_tells_the_caller_to_forget_and_says_it_all_again():
    constraints = recovering(Recovery.RECOVERY_RESTART)
    async with (
        upstream(CUT) as first,
        upstream(AGAIN) as second,
        service_over(first.url, second.url) as service,
    ):
        found = await stream(
            service, spec(constraints=constraints), StreamOptions(include_final_messages=True)
        )

    assert found.code is grpc.StatusCode.OK
    reset = found.kinds.index("stream_reset")
    assert "".join(e.text_delta.text for e in found.events[:reset]) == SAID
    assert "".join(e.text_delta.text for e in found.events[reset:]) == "Another answer."
    assert found.kinds[reset + 1] == "route_selected"
    assert [
        e.route_selected.route.provider for e in found.events if e.HasField("route_selected")
    ] == [
        "a",
        "b",
    ]
    assert [e.sequence for e in found.events] == list(range(1, len(found.events) + 1))
    completion = found.events[-1].completed.completion
    assert completion.choices[0].message.parts[0].text == "Another answer."
    assert completion.usage.estimated  # Of the answer that broke off nobody sent any.


async def test_the_python_client_shows_the_second_answer_alone():
    async with (
        upstream(CUT) as first,
        upstream(AGAIN) as second,
        service_over(first.url, second.url) as service,
        AsyncClient(service.grpc_address) as client,
        client.stream(spec=spec(constraints=recovering(Recovery.RECOVERY_RESTART))) as streamed,
    ):
        completion = await streamed.completion()

    assert completion.choices[0].message.parts[0].text == "Another answer."


async def test_a_caller_can_ask_to_have_a_broken_answer_continued():
    constraints = recovering(Recovery.RECOVERY_CONTINUE)
    async with (
        upstream(CUT) as first,
        upstream(CONTINUED) as second,
        service_over(first.url, second.url) as service,
    ):
        found = await stream(
            service, spec(constraints=constraints), StreamOptions(include_attempts=True)
        )
        messages = second.exchanges[0].json["messages"]

    assert found.code is grpc.StatusCode.OK
    assert found.text == "The quick brown fox jumps."
    assert found.kinds.count("route_selected") == 1
    assert found.kinds.count("attempt_failed") == 1
    completion = found.events[-1].completed.completion
    assert [(a.provider, a.HasField("error")) for a in completion.attempts] == [
        ("a", True),
        ("b", False),
    ]
    assert [warning.code for warning in completion.warnings] == ["CONTINUED"]
    assert completion.route.provider == "b"
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == "The quick brown fox"


def chat(address: str) -> openai.AsyncOpenAI:
    """OpenAI's client, which does nothing by itself."""
    return openai.AsyncOpenAI(
        api_key="any", base_url=f"http://{address}/v1", max_retries=0, timeout=LIMIT_S
    )


async def text_over_http(address: str, **more: Any) -> tuple[str, list[dict[str, Any]]]:
    """The text of a stream, and the gateway's remarks."""
    pieces: list[str] = []
    remarks: list[dict[str, Any]] = []
    async with chat(address) as client:
        chunks = await client.chat.completions.create(
            model="all", messages=[{"role": "user", "content": "hi"}], stream=True, **more
        )
        async for chunk in chunks:
            if chunk.choices and chunk.choices[0].delta.content:
                pieces.append(chunk.choices[0].delta.content)
            extra = (chunk.model_extra or {}).get("trunkline")
            if extra:
                remarks.append(extra)
    return "".join(pieces), remarks


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (ROUTE, {"extra_body": {"trunkline": {"recovery": "continue"}}}),
        ({**ROUTE, "recovery": "continue"}, {}),
    ],
    ids=["the request says so", "the route says so"],
)
async def test_over_http_a_broken_answer_is_continued_where(route, body):
    async with (
        upstream(CUT) as first,
        upstream(CONTINUED) as second,
        service_over(first.url, second.url, routes=[route]) as service,
    ):
        text, remarks = await text_over_http(service.http_address, **body)

    assert text == "The quick brown fox jumps."
    assert [warning["code"] for warning in remarks[-1]["warnings"]] == ["CONTINUED"]
    assert remarks[-1]["failover_count"] == 1


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (ROUTE, {}),
        (
            {**ROUTE, "recovery": "continue"},
            {"extra_body": {"trunkline": {"recovery": "terminate"}}},
        ),
    ],
    ids=["nobody says otherwise", "the request says so"],
)
async def test_over_http_a_broken_answer_ends_with_an_error_where(route, body):
    async with (
        upstream(CUT) as first,
        upstream(CONTINUED) as second,
        service_over(first.url, second.url, routes=[route]) as service,
    ):
        with pytest.raises(openai.APIError) as caught:
            await text_over_http(service.http_address, **body)

    assert caught.value.code == "stream_interrupted"
    assert second.exchanges == []


async def test_over_http_nothing_can_be_taken_back():
    async with upstream(AGAIN) as first, service_over(first.url) as service:
        with pytest.raises(openai.BadRequestError) as caught:
            await text_over_http(
                service.http_address, extra_body={"trunkline": {"recovery": "restart"}}
            )

    assert caught.value.param == "trunkline.recovery"


async def test_a_route_that_hedges_asks_a_second_provider_and_leaves_the_silent_one():
    silent: list[Step] = [head(), Hang()]
    async with (
        upstream(silent) as first,
        upstream(AGAIN) as second,
        service_over(first.url, second.url, routes=[{**ROUTE, "hedge": True}]) as service,
    ):
        for _ in range(20):
            service.circuits.hedges("all").earn()
        for candidate in service.catalog.candidates:
            for _ in range(20):
                service.circuits.health(candidate).first_tokens.add(0.01)
        found = await stream(service, spec())
        async with asyncio.timeout(LIMIT_S):
            await first.exchanges[0].closed.wait()

    assert found.text == "Another answer."
    completion = found.events[-1].completed.completion
    assert [(a.provider, a.hedge) for a in completion.attempts] == [("a", False), ("b", True)]
    assert completion.route.failover_count == 0


def slowly(_: Exchange) -> Sequence[Step]:
    """An answer whose end takes a moment."""
    return [
        head(),
        event(delta("x")),
        Pause(0.2),
        event(finish()),
        event(usage(9, 7)),
        event("[DONE]"),
        END,
    ]


@pytest.mark.parametrize("drains", [True, False])
async def test_an_answer_that_is_billed_as_a_whole_is_read_to_its_end_when_the_caller_leaves(
    drains,
):
    async with (
        upstream(slowly) as slow,
        observed(
            providers=[provider("a", slow.url, drain_on_disconnect=drains)],
            models=[model("m", "a")],
        ) as running,
    ):
        async with grpc.aio.insecure_channel(running.service.grpc_address) as channel:
            call = CompletionServiceStub(channel).Complete(CompleteRequest(spec=spec("m")))
            await call.read()
            call.cancel()
        await running.request()
        async with asyncio.timeout(LIMIT_S):
            if drains:
                await running.told("abandoned_answer_read")
            else:
                await slow.exchanges[0].closed.wait()

    assert slow.exchanges[0].closed.is_set() is not drains
    told = [
        (line["provider"], line["output_tokens"])
        for line in running.logged("abandoned_answer_read")
    ]
    assert told == ([("a", 7)] if drains else [])


LAST_WORDS: dict[str, Step] = {
    "silence": Hang(),
    "an error": event({"error": {"message": "boom", "code": "server_error"}}),
    "a reset": Reset(),
}


@pytest.mark.parametrize("last_word", LAST_WORDS.values(), ids=LAST_WORDS)
@pytest.mark.parametrize(
    "recovery",
    [Recovery.RECOVERY_TERMINATE, Recovery.RECOVERY_RESTART, Recovery.RECOVERY_CONTINUE],
)
async def test_an_answer_that_has_ended_is_whole_whatever_follows(recovery, last_word):
    steps = [head(), event(delta("Hello")), event(finish()), Pause(0.02), last_word]
    async with (
        upstream(steps) as first,
        upstream(AGAIN) as second,
        service_over(first.url, second.url) as service,
    ):
        found = await stream(service, spec(constraints=recovering(recovery)))

    assert found.code is grpc.StatusCode.OK
    assert found.text == "Hello"
    assert found.kinds.count("choice_finished") == 1
    assert second.exchanges == []


async def test_a_process_without_memory_says_so():
    async with (
        upstream(AGAIN) as first,
        service_over(first.url, limits={"memory_bytes": 64 * 1024 * 1024}) as service,
    ):
        async with asyncio.timeout(LIMIT_S):
            while not service.admission.pressure.sample.memory_share:  # noqa: ASYNC110 - a number
                await asyncio.sleep(0.02)
        found = await stream(service, spec())

    assert found.error is not None
    assert reason_of(found.error) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
