"""What a panel makes of members that break off, run on, or answer with what is not meant for the next reader."""

import json
from typing import Any, Final

import httpx
import pytest

from tests.edges.test_panel_escalation import WIDE, fast
from tests.edges.test_panels import (
    AGGREGATOR,
    FAILING,
    HEAD,
    THREE,
    by_role,
    completed,
    question,
    says,
    steps_of,
    text_of,
    world,
)
from tests.support.upstream import (
    Exchange,
    Hang,
    Reset,
    Step,
    delta,
    event,
)
from trunkline.v1.completion_spec_pb2 import ReasoningOptions, Recovery, RoutingConstraints

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
