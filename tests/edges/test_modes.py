"""What a request is given by its mode, its persona and the models that go with them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import pytest

from tests.edges.errors import fields_of, reason_of
from tests.edges.observed import spec, stream
from tests.support.service import model, provider, service
from tests.support.upstream import (
    Exchange,
    Hang,
    Pause,
    Step,
    answer,
    hello,
    message,
    upstream,
    whole,
)
from trunkline.v1.completion_pb2 import Completion, Route, RouteReason
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    PreviewRouteRequest,
)
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.app import Service
from trunkline_server.core.personas import THEO
from trunkline_server.routing.default_modes import DEFAULT_MODES

PROMPTS = {mode.id: mode.system_prompt for mode in DEFAULT_MODES}
NO_FOLLOW_UPS = [{"id": mode.id, "follow_ups": False} for mode in DEFAULT_MODES]


def over(url: str, *modes: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """Two models, one of which is for code only, and modes without questions to ask next."""
    changed = {mode["id"] for mode in modes}
    kept = [mode for mode in NO_FOLLOW_UPS if mode["id"] not in changed]
    return {
        "providers": [provider("a", url)],
        "models": [
            model("plain", "a", modes=["fast", "think", "roast", "haiku"]),
            model("coder", "a", modes=["code"]),
        ],
        "modes": [*kept, *({"follow_ups": False, **mode} for mode in modes)],
        **sections,
    }


def asked(text: str = "hi", **fields: Any) -> CompletionSpec:
    """Of no model by name."""
    return CompletionSpec(
        messages=[Message(role=Role.ROLE_USER, parts=[Part(text=text)])], **fields
    )


async def unary(running: Service, request: CompletionSpec) -> Completion:
    """Over gRPC."""
    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        stub = CompletionServiceStub(channel)
        response = await stub.CompleteUnary(CompleteUnaryRequest(spec=request), timeout=20)
        return response.completion


def instructions(body: Any) -> str:
    """The system prompt that an upstream got."""
    return "\n\n".join(
        m["content"] for m in body["messages"] if m["role"] in ("system", "developer")
    )


async def test_a_mode_brings_its_prompt_and_its_models_and_says_so():
    async with upstream(hello) as good, service(**over(good.url)) as running:
        completion = await unary(running, asked(mode="code"))
    body = good.exchanges[0].json

    assert body["model"] == "coder"
    assert instructions(body) == PROMPTS["code"]
    assert body["messages"][-1] == {"role": "user", "content": "hi"}
    assert completion.route == Route(
        provider="a",
        model="coder",
        mode="code",
        resolved_mode="code",
        engine="theo-1-code",
        attempt=1,
        reason=RouteReason.ROUTE_REASON_REQUESTED,
    )


async def test_a_mode_of_the_configuration_names_its_models_and_its_options():
    modes = [
        {
            "id": "haiku",
            "models": ["coder", "plain"],
            "system_prompt": "Three lines.",
            "temperature": 0.5,
            "max_output_tokens": 60,
        }
    ]
    async with upstream(hello) as good, service(**over(good.url, *modes)) as running:
        completion = await unary(running, asked(mode="haiku"))
        told = await unary(running, asked(mode="haiku", sampling={"temperature": 1.5}))
    bodies = [exchange.json for exchange in good.exchanges]

    # `coder` is for code only, whatever the mode would like.
    assert [body["model"] for body in bodies] == ["plain", "plain"]
    assert [body["temperature"] for body in bodies] == [0.5, 1.5]
    assert [body["max_completion_tokens"] for body in bodies] == [60, 60]
    assert completion.route.route == told.route.route == "mode:haiku"


async def test_a_mode_may_be_a_route():
    sections = {"routes": [{"id": "both", "candidates": ["coder", "plain"], "strategy": "ordered"}]}
    modes = [{"id": "fast", "route": "both"}]
    async with upstream(hello) as good, service(**over(good.url, *modes, **sections)) as running:
        completion = await unary(running, asked(mode="fast"))

    assert (completion.route.route, completion.route.model) == ("both", "plain")


@pytest.mark.parametrize(
    ("fields", "model_asked"),
    [
        ({"mode": "think", "model_overrides": {"think": "coder"}}, "coder"),
        ({"mode": "think", "model_overrides": {"code": "coder"}}, "plain"),
        ({"mode": "think", "model_overrides": {"think": "theo-1-code"}}, "coder"),
        ({"model": "theo-1-code"}, "coder"),
        ({"model": "theo-1-flash"}, "plain"),
        ({"model": "coder", "mode": "think"}, "coder"),
    ],
    ids=["its override", "another's", "an engine", "an engine as model", "flash", "a model"],
)
async def test_who_answers_can_be_said_by_mode(fields, model_asked):
    async with upstream(hello) as good, service(**over(good.url)) as running:
        completion = await unary(running, asked(**fields))

    assert good.exchanges[0].json["model"] == model_asked
    assert completion.route.resolved_mode == fields.get("mode", completion.route.resolved_mode)


async def test_the_persona_comes_before_the_mode_and_the_own_prompt_instead_of_it():
    personas = {"pirate": {"system_prompt": "Arr."}, "default": {"system_prompt": "Be kind."}}
    async with (
        upstream(hello) as good,
        service(**over(good.url, personas=personas)) as running,
    ):
        for fields in (
            {"persona": "pirate"},
            {"persona": "pirate", "mode": "fast"},
            {"persona": "pirate", "system_prompt": "Only this."},
            {"persona": "theo"},
            {"persona": "none"},
            {},
        ):
            await unary(running, asked(model="plain", **fields))

    assert [instructions(exchange.json) for exchange in good.exchanges] == [
        "Arr.",
        f"Arr.\n\n{PROMPTS['fast']}",
        "Only this.",
        THEO,
        "",
        "Be kind.",
    ]


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"mode": "thnk"}, "INVALID_REQUEST", "spec.mode"),
        ({"mode": "video"}, "MODE_REQUIRES_JOB", "spec.mode"),
        ({"persona": "priate"}, "INVALID_REQUEST", "spec.persona"),
    ],
    ids=["a mode", "a job", "a persona"],
)
async def test_what_is_unknown_is_refused_with_the_nearest_name(fields, reason, field):
    personas = {"pirate": {"system_prompt": "Arr."}}
    async with (
        upstream(hello) as good,
        service(**over(good.url, personas=personas)) as running,
    ):
        found = await stream(running, asked(**fields))

    assert reason_of(found.error) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert fields_of(found.error) == [field]
    assert good.exchanges == []


async def test_several_answers_can_not_all_be_checked_against_a_library():
    async with upstream(hello) as good, service(**over(good.url)) as running:
        found = await stream(
            running, asked(model="plain", mode="genui", sampling={"candidate_count": 2})
        )

    assert fields_of(found.error) == ["spec.sampling.candidate_count"]
    assert good.exchanges == []


async def test_the_preview_resolves_the_mode_too():
    async with (
        upstream(hello) as good,
        service(**over(good.url)) as running,
        grpc.aio.insecure_channel(running.grpc_address) as channel,
    ):
        request = PreviewRouteRequest(spec=CompletionSpec(mode="code"))
        found = await CompletionServiceStub(channel).PreviewRoute(request, timeout=20)

    assert found.resolved_mode == "code"
    assert [c.model for c in found.candidates if c.eligible] == ["coder"]


async def test_a_plan_without_the_mode_is_refused():
    sections = {
        "keys": [{"id": "k", "key_env": "K", "plan": "small"}],
        "plans": [{"id": "small", "modes": ["fast"]}],
    }
    async with (
        upstream(hello) as good,
        service(environment={"K": "secret-key-of-k"}, **over(good.url, **sections)) as running,
    ):
        key = (("authorization", "Bearer secret-key-of-k"),)
        refused = await stream(running, asked(mode="think"), metadata=key)
        allowed = await stream(running, asked(mode="fast"), metadata=key)

    assert reason_of(refused.error) == (grpc.StatusCode.PERMISSION_DENIED, "ROUTE_NOT_ALLOWED")
    assert allowed.error is None


@pytest.mark.parametrize(
    ("plan", "fields"),
    [
        ({"modes": ["fast", "auto"]}, {"model": "theo-1-code"}),
        ({"modes": ["fast"]}, {"mode": "fast", "model_overrides": {"fast": "theo-1-code"}}),
        ({"routes": ["auto"]}, {"mode": "fast", "model_overrides": {"fast": "coder"}}),
    ],
    ids=["an engine as model", "an engine in a mode's place", "a model in a mode's place"],
)
async def test_what_a_plan_does_not_have_is_not_had_by_another_name(plan, fields):
    sections = {
        "keys": [{"id": "k", "key_env": "K", "plan": "small"}],
        "plans": [{"id": "small", **plan}],
    }
    async with (
        upstream(hello) as good,
        service(environment={"K": "secret-key-of-k"}, **over(good.url, **sections)) as running,
    ):
        key = (("authorization", "Bearer secret-key-of-k"),)
        refused = await stream(running, asked(**fields), metadata=key)
        allowed = await stream(running, asked(mode="fast"), metadata=key)

    assert reason_of(refused.error) == (grpc.StatusCode.PERMISSION_DENIED, "ROUTE_NOT_ALLOWED")
    assert allowed.error is None
    assert len(good.exchanges) == 1


ASKS_NEXT = {"id": "fast", "follow_ups": True}


def with_questions(
    next_steps: Sequence[Step], answer_steps: Sequence[Step]
) -> Callable[[Exchange], list[Step]]:
    """An upstream that knows what it is asked: for questions, or for the answer."""

    def say(exchange: Exchange) -> list[Step]:
        is_beside = "<question>" in exchange.json["messages"][-1]["content"]
        if not is_beside and not exchange.json.get("stream"):
            return [*(s for s in answer_steps if isinstance(s, Pause)), *message("Hello")]
        return list(next_steps if is_beside else answer_steps)

    return say


QUESTIONS = answer("How tall is it?\n", "Who built it?")


async def test_questions_to_ask_next_come_with_the_answer_and_are_paid_for():
    said = with_questions(QUESTIONS, [Pause(0.2), *answer("Hello")])
    async with upstream(said) as good, service(**over(good.url, ASKS_NEXT)) as running:
        streamed = await stream(running, asked(mode="fast"))
        folded = await unary(running, asked(mode="fast"))
    completions = [streamed.events[-1].completed.completion, folded]

    for completion in completions:
        assert [f.prompt for f in completion.follow_ups] == ["How tall is it?", "Who built it?"]
        assert completion.usage.total_tokens == 2 * 13
        assert len(completion.attempts) == 1
    assert streamed.text == "Hello"


@pytest.mark.parametrize(
    ("steps", "total_tokens"),
    [(whole({"error": {"message": "no"}}, 500), 13), ([Hang()], 13), (answer(""), 26)],
    ids=["refused", "silent", "empty"],
)
async def test_an_answer_does_not_wait_for_questions_that_do_not_come(steps, total_tokens):
    async with (
        upstream(with_questions(steps, answer("Hello"))) as good,
        service(**over(good.url, ASKS_NEXT)) as running,
    ):
        began_s = asyncio.get_running_loop().time()
        found = await stream(running, asked(mode="fast"))
        took_s = asyncio.get_running_loop().time() - began_s
    completion = found.events[-1].completed.completion

    assert (found.text, list(completion.follow_ups)) == ("Hello", [])
    assert completion.usage.total_tokens == total_tokens
    assert took_s < 5


async def test_whoever_leaves_takes_the_questions_along():
    hangs = with_questions([Hang()], [*answer("Hello")[:2], Hang()])
    async with (
        upstream(hangs) as good,
        service(**over(good.url, ASKS_NEXT)) as running,
        grpc.aio.insecure_channel(running.grpc_address) as channel,
    ):
        call = CompletionServiceStub(channel).Complete(
            CompleteRequest(spec=asked(mode="fast")), timeout=20
        )
        async for event in call:
            if event.HasField("text_delta"):
                break
        call.cancel()
        async with asyncio.timeout(10):
            for exchange in good.exchanges:
                await exchange.closed.wait()

    assert len(good.exchanges) == 2


async def test_where_costs_are_bounded_nobody_is_asked_beside():
    prices = {"input_price": 1.0, "output_price": 1.0}
    async with upstream(with_questions(QUESTIONS, answer("Hello"))) as good:
        sections = over(good.url, ASKS_NEXT)
        sections["models"] = [{**each, **prices} for each in sections["models"]]
        async with service(**sections) as running:
            bounded = {"max_cost_nanos": 10**9}
            completion = await unary(running, asked(mode="fast", constraints=bounded))

    assert list(completion.follow_ups) == []
    assert len(good.exchanges) == 1


def test_specs_of_other_tests_name_no_mode():
    # Or they would measure this instead of what they mean.
    assert spec().mode == ""
