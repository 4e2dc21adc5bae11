"""What a panel makes of members that break off, run on, or answer with what is not meant for the next reader."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest

from tests.edges.errors import reason_of
from tests.edges.observed import stream
from tests.edges.test_panel_escalation import OBJECT, TWO, WIDE, fast
from tests.edges.test_panels import (
    AGGREGATOR,
    BROKEN,
    FAILED,
    FAILING,
    FULL,
    HEAD,
    ONCE,
    PROPOSER,
    THREE,
    UNUSED,
    USED,
    WAYS,
    by_role,
    calling,
    completed,
    question,
    report,
    row,
    says,
    steps_of,
    text_of,
    told,
    world,
)
from tests.faults.waiting import until
from tests.support.accounts import PRICES, desk, new_sqlite
from tests.support.service import model, provider, service
from tests.support.upstream import Exchange, Hang, Reset, Step, delta, event, upstream
from trunkline.v1.completion_service_pb2 import CompleteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import (
    BuiltinSource,
    ReasoningOptions,
    Recovery,
    RoutingConstraints,
    SamplingOptions,
    Tool,
    ToolOptions,
)
from trunkline.v1.message_pb2 import Media, Part
from trunkline_server import app_orchestration

REFUSAL: Final = "I'm sorry, but I can't help with that."
BREAKING: Final[list[Step]] = [HEAD, event(delta("I'm ")), Reset()]


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    """Of a stream that has ended well."""
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def once_broken(answer: Any) -> Any:
    """A model that breaks off the first time."""
    broken: list[Exchange] = []

    def script(exchange: Exchange) -> Any:
        if not broken:
            broken.append(exchange)
            return BREAKING
        return steps_of(answer, exchange)

    return script


# members that break off


async def test_a_proposal_that_came_at_the_second_attempt_is_told_as_any_other():
    scripts = {**THREE, "a": FAILING, "b": BREAKING, "c": FAILING, "d": says("It is four.")}
    more = {"b": {"fallbacks": ["d"]}}
    async with world(scripts, {"proposers": ["a", "b", "c"]}, more=more) as found:
        streamed = await found.stream()
        response = await found.chat(stream=True)
    assert streamed.text == "It is four."
    assert streamed.kinds[:3] == ["started", "route_selected", "text_delta"]
    assert streamed.events[1].route_selected.route.model == "d"
    chunks = chunks_of(response)
    assert {chunk["model"] for chunk in chunks} == {"p"}


async def test_an_answer_of_the_second_attempt_takes_the_place_of_the_one_that_was_dropped():
    """Nothing of the first answer is left, whichever attempt the second one came from."""
    scripts = {**THREE, "f": says(REFUSAL), "a": FAILING, "b": BREAKING, "c": FAILING}
    scripts["d"] = says("It is four.")
    more = {"b": {"fallbacks": ["d"]}}
    async with world(scripts, routes=[fast(), WIDE], more=more) as found:
        end = await found.unary()
    assert text_of(end) == "It is four."


@pytest.mark.parametrize("recovery", ["RECOVERY_RESTART", "RECOVERY_CONTINUE"])
async def test_what_broke_off_while_it_was_held_back_was_never_there(recovery):
    scripts = {**THREE, "f": BREAKING, "g": says("It is seven.")}
    more = {"f": {"fallbacks": ["g"]}}
    constraints = RoutingConstraints(recovery=Recovery.Value(recovery))
    async with world(scripts, routes=[fast(), WIDE], more=more) as found:
        streamed = await found.stream(question(constraints=constraints))
    assert streamed.error is None
    assert streamed.kinds[:3] == ["started", "route_selected", "text_delta"]
    assert "stream_reset" not in streamed.kinds
    if recovery == "RECOVERY_RESTART":
        assert streamed.text == "It is seven."
        assert text_of(completed(streamed)) == "It is seven."


async def test_what_was_held_back_is_shown_before_it_is_told_that_it_broke_off():
    async with world({**THREE, "f": BREAKING}, routes=[fast(), WIDE]) as found:
        streamed = await found.stream()
    assert streamed.text == "I'm "
    assert streamed.kinds == ["started", "route_selected", "text_delta", "interrupted"]


# members that run on


async def test_a_proposal_without_an_end_is_cut_and_has_one():
    endless = [HEAD, *[event(delta("x" * 64 * 1024))] * 8, Hang()]
    scripts = {**THREE, "a": FAILING, "b": endless, "c": FAILING}
    async with world(scripts) as found:
        end = await found.unary()
        response = await found.chat(stream=True)
        await found.is_left()
    assert len(text_of(end)) <= 330_000
    chunks = chunks_of(response)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["waymark"]["degraded"]


def thinks(*texts: str) -> list[Step]:
    """The beginning of an answer: reasoning alone."""
    pieces: list[Step] = []
    for text in texts:
        piece = delta("")
        piece["choices"][0]["delta"] = {"reasoning_content": text}
        pieces.append(event(piece))
    return pieces


async def test_reasoning_that_is_shown_is_not_held_back_without_end():
    steps = [HEAD, *thinks(*["hm " * 1_000] * 20), Hang()]
    async with world({**THREE, "f": steps}, routes=[fast(), WIDE]) as found:
        streamed = await found.stream(
            question(reasoning=ReasoningOptions(include=True)), timeout_s=2.0
        )
    assert "reasoning_delta" in streamed.kinds


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"consensus": ["\\ud800"]}', id="half a character"),
        pytest.param(json.dumps({"consensus": ["x" * 200_000]}), id="long"),
        pytest.param('{"consensus": [' + "[" * 900 + "]" * 900 + "]}", id="deep"),
    ],
)
async def test_a_critique_that_is_not_what_was_asked_for_harms_nobody(text):
    critic = says(text)
    scripts = {**THREE, "z": by_role(critic=critic, aggregator=THREE["z"])}
    async with world(scripts, {"critique": True, "quorum": 3}) as found:
        end = await found.unary()

        (aggregator,) = found.asked(role=AGGREGATOR)
    assert text_of(end) == "It is six."
    assert len(aggregator.json["messages"][-1]["content"]) < 8_000


# what is told of whom


async def test_a_wider_panel_that_was_asked_for_by_name_was_not_asked_for_by_another_one():
    scripts = {"f": by_role(proposer=says(REFUSAL), aggregator=says("It is six."))}
    routes = [
        {"id": "p", "panel": {"proposers": ["f"]}, "escalate_to": "wide"},
        {"id": "wide", "panel": {"proposers": ["f", "f"], "aggregator": "f"}},
    ]
    async with world(scripts, routes=routes) as found:
        moved = await found.unary()
        asked = await found.unary(question("wide"))
    names = [(end.route.requested_model, end.route.route) for end in (moved, asked)]
    assert names == [("p", "wide"), ("wide", "wide")]


async def test_calls_of_the_gateways_tools_are_told_with_the_number_of_their_turn():
    turns = [
        calling(("c1", "calculator", '{"expression": "6*7"}')),
        says("It is ", "42.", tokens=8),
    ]
    scripts = {**THREE, "z": lambda exchange: turns.pop(0)(exchange)}
    async with world(scripts, {"quorum": 3}) as found:
        tool = Tool(name="calculator", builtin=BuiltinSource(name="calculator"))
        end = await found.unary(question(tool_options=ToolOptions(tools=[tool])))
    turns_of_z = [attempt.hop for attempt in end.attempts if attempt.provider == "z"]
    assert turns_of_z == [3, 4]
    assert [call.hop for call in end.server_tool_calls] == [3]


async def test_an_image_leaves_the_drafts_their_room():
    long = {name: says(f"{name}" * 3_000) for name in "abc"}
    more = {"z": {"context_window_tokens": 128_000}}
    image = Part(image=Media(data=b"\x89PNG" + b"x" * 500_000, mime_type="image/png"))
    async with world({**long, "z": THREE["z"]}, {"quorum": 3}, more=more) as found:
        asked = question()
        asked.messages[0].parts.append(image)
        await found.unary(asked)

        (aggregator,) = found.asked("z")
    texts = "".join(p.get("text", "") for p in aggregator.json["messages"][-1]["content"])
    assert [texts.count(name * 3_000) for name in "abc"] == [1, 1, 1]


async def test_thinking_that_was_given_a_budget_leaves_a_proposal_its_room():
    """For a dialect whose limit of an answer includes what was thought for it."""
    asked = {}

    def script(exchange: Exchange) -> list[Step]:
        asked[exchange.json["model"]] = exchange.json
        return FAILING

    async with upstream(script) as models:
        names = {"a": "claude-sonnet-4-5", "b": "claude-opus-4-5"}
        async with service(
            providers=[provider("x", models.url, "anthropic")],
            models=[model(name, "x", model=known) for name, known in names.items()],
            routes=[{"id": "p", "panel": {"proposers": ["a", "b"]}}],
        ) as found:
            thinking = ReasoningOptions(budget_tokens=8_192)
            await stream(found, question(reasoning=thinking, constraints=ONCE))
    limits = [(asked[known]["max_tokens"], asked[known]["thinking"]) for known in names.values()]
    budget = {"type": "enabled", "budget_tokens": 8_192}
    assert limits == [(8_192 + 4_096, budget)] * 2


async def test_a_panel_of_which_one_proposer_is_left_says_so():
    async with world(THREE) as found:
        limits = RoutingConstraints(allowed_providers=["a", "z"])
        end = await found.unary(question(constraints=limits))
    assert text_of(end) == "It is one."
    assert told(end) == report(row("a", PROPOSER, USED, 1), degraded=True)


# escalations that come to nothing


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_that_is_cut_is_better_than_none(way):
    scripts: dict[str, Any] = {"f": says('{"n": ', tokens=3), **dict.fromkeys("abcz", FAILING)}
    async with world(scripts, routes=[fast(), WIDE]) as found:
        asked = question(response_format=OBJECT, constraints=ONCE)
        end = await found.complete(way, asked)
        response = await found.chat(response_format={"type": "json_object"})
    assert text_of(end) == '{"n": '
    assert told(end) == report(
        row("f", PROPOSER, USED, 3),
        *[row(name, PROPOSER, FAILED, error=BROKEN, layer=2) for name in "abc"],
        route="wide",
        asked="p",
        escalated=True,
        escalation_reason="invalid_output",
        degraded=True,
    )
    assert (end.route.route, end.route.model) == ("wide", "f")
    assert response.headers["speechify-route"] == response.json()["waymark"]["route"] == "wide"
    assert response.json()["model"] == "wide"


async def test_a_proposal_that_stands_in_for_an_aggregator_is_judged_by_itself():
    """Nothing that the aggregator had begun with is in it."""
    scripts = {
        **THREE,
        "f": says('{"n": 7}', tokens=1),
        "h": [HEAD, event(delta('{"m": ')), Reset()],
    }
    routes = [fast(panel={**TWO, "proposers": ["f", "f"]}), WIDE]
    async with world(scripts, routes=routes) as found:
        limits = RoutingConstraints(max_attempts=1)
        limits.first_token_timeout.seconds = 5  # So that it is read as a stream.
        end = await found.unary(question(response_format=OBJECT, constraints=limits))
    assert text_of(end) == '{"n": 7}'
    assert (end.panel.escalated, end.panel.degraded) == (False, True)


# who pays


async def test_what_a_panel_used_before_its_caller_left_counts_against_the_callers_limit():
    proposals = {name: says("It is one.", tokens=400) for name in "abc"}
    scripts: dict[str, Any] = {**proposals, "z": [HEAD, Hang()]}
    plan = {"id": "limited", "tokens_per_minute": 1_000}
    key = {"id": "k", "key_env": "KEY", "plan": "limited"}
    async with world(
        scripts, {"quorum": 3}, plans=[plan], keys=[key], environment={"KEY": "secret-of-k"}
    ) as found:
        bearer = (("authorization", "Bearer secret-of-k"),)
        asked = question(sampling=SamplingOptions(max_output_tokens=100))
        leaving = asyncio.ensure_future(found.stream(asked, metadata=bearer))
        await until(lambda: bool(found.asked("z")), "an aggregator")
        leaving.cancel()
        await found.is_left()
        refused = await found.stream(asked, metadata=bearer)
    assert reason_of(refused.error) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOKEN_RATE_LIMITED")


async def test_an_answer_that_is_whole_ends_once_although_its_credits_do(tmp_path: Path):
    long = "It is seven. " * 1_500

    def script(exchange: Exchange) -> Any:
        return says(long)(exchange)

    async with (
        upstream(script) as models,
        desk(
            new_sqlite(tmp_path),
            models.url,
            providers=[provider(name, models.url) for name in "ab"],
            models=[model(name, name, **PRICES) for name in "ab"],
            routes=[{"id": "p", "panel": {"proposers": ["a", "b"], "early_stop": True}}],
        ) as found,
    ):
        key = await found.new_key(plan="prepaid")
        await found.grant(36_000_000)  # What all of it may cost, and not what a longer answer may.
        call = CompletionServiceStub(found.channel).Complete(
            CompleteRequest(spec=question(), stream_options=FULL), metadata=key
        )
        events = [event async for event in call]
        balance = await found.balance()
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["started", "route_selected", "text_delta", "choice_finished", "completed"]
    end = events[-1].completed.completion
    assert text_of(end) == long
    assert (end.panel.stopped_early, balance.held_nanos) == (True, 0)


class Slow:
    """Finds all texts alike, after a while."""

    async def cosine(self, first: str, second: str) -> float | None:
        await asyncio.sleep(0.4)
        return 1.0

    async def close(self) -> None:
        """Nothing is held."""


async def test_one_of_the_two_that_agree_is_the_answer_whoever_comes_while_they_are_compared(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(app_orchestration, "is_installed", lambda: False)
    monkeypatch.setattr(app_orchestration, "Unknown", Slow)
    scripts = {
        **THREE,
        "a": says("Whales breathe air through a hole on top of the head.", after_s=0.2),
        "b": says("Water boils at 100 degrees Celsius at sea level."),
        "c": says("At sea level, water boils at 100 degrees Celsius."),
    }
    async with world(scripts, {"early_stop": True, "quorum": 2}) as found:
        end = await found.unary()
    assert end.panel.stopped_early
    assert text_of(end) == "Water boils at 100 degrees Celsius at sea level."
    assert [member.status for member in end.panel.members] == [UNUSED, USED, UNUSED]


PRICED: Final = {name: {"input_price": 1.0, "output_price": 2.0} for name in "abcz"}
# Three proposals of 100 tokens for 2 dollars a million, and an answer of 100.
OUTPUT_NANOS: Final = 4 * 100 * 2_000


@pytest.mark.parametrize("way", WAYS)
async def test_a_maximum_cost_is_that_of_the_panel_and_not_of_each_of_its_models(way):
    limited = SamplingOptions(max_output_tokens=100)
    async with world(THREE, more=PRICED) as found:
        enough = RoutingConstraints(max_cost_nanos=3 * OUTPUT_NANOS)
        answered = await found.complete(way, question(sampling=limited, constraints=enough))
        asked = len(found.models.exchanges)
        little = RoutingConstraints(max_cost_nanos=OUTPUT_NANOS)
        error = await found.error(way, question(sampling=limited, constraints=little))

        assert len(found.models.exchanges) == asked
    assert answered.usage.cost.amount_nanos <= 3 * OUTPUT_NANOS
    assert reason_of(error) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_ELIGIBLE_PROVIDER")
    assert "the panel 'p' could cost" in str(error.details())


async def test_a_wider_panel_that_would_cost_too_much_is_not_asked():
    scripts = {**THREE, "f": says(REFUSAL)}
    routes = [fast(), {"id": "wide", "panel": {"proposers": ["a", "b", "c"], "aggregator": "z"}}]
    prices = {**PRICED, "f": {"input_price": 1.0, "output_price": 2.0}}
    limited = SamplingOptions(max_output_tokens=100)
    async with world(scripts, routes=routes, more=prices) as found:
        one = RoutingConstraints(max_cost_nanos=OUTPUT_NANOS)
        kept = await found.complete("unary", question(sampling=limited, constraints=one))
        both = RoutingConstraints(max_cost_nanos=5 * OUTPUT_NANOS)
        moved = await found.complete("unary", question(sampling=limited, constraints=both))

    assert (text_of(kept), kept.panel.escalated) == (REFUSAL, False)
    assert (text_of(moved), moved.panel.escalated) == ("It is six.", True)
