"""When an answer is dropped for that of a wider panel, by each trigger and not otherwise; the caller sees only one."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest

from tests.edges.observed import LIMIT_S
from tests.edges.test_panels import (
    AGGREGATOR,
    CANCELLED,
    FULL,
    HEAD,
    INPUT_TOKENS,
    PROPOSER,
    THREE,
    UNUSED,
    USED,
    WAYS,
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
from tests.edges.test_panels import tokens as tokens_of
from tests.support.accounts import PRICES, desk, new_sqlite
from tests.support.service import model, provider
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Script,
    Step,
    delta,
    event,
    finish,
    upstream,
    usage,
)
from trunkline.v1.completion_pb2 import Completion, PanelMember, RouteReason
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import (
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    RoutingConstraints,
    SamplingOptions,
)

pytestmark = pytest.mark.once

REFUSAL: Final = "I'm sorry, but I can't help with that."
ALL: Final = ["refusal", "empty", "cut", "invalid_output", "uncertain", "disagreement"]
PANEL: Final[Mapping[str, Any]] = {"proposers": ["a", "b", "c"], "aggregator": "z", "quorum": 3}
TWO: Final[Mapping[str, Any]] = {"proposers": ["f", "g"], "aggregator": "h", "quorum": 2}
WIDE: Final[Mapping[str, Any]] = {"id": "wide", "panel": PANEL}
# As every answer of the wider panel is here: members, and what each of them is told to have written.
WIDENED: Final = (("a", PROPOSER, 1), ("b", PROPOSER, 2), ("c", PROPOSER, 3), ("z", AGGREGATOR, 6))
OBJECT: Final = ResponseFormat(json_object=JsonObjectFormat())
SCHEMA: Final = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
FITTING: Final = ResponseFormat(
    json_schema=JsonSchemaFormat(name="n", schema_json=json.dumps(SCHEMA))
)


def fast(**more: Any) -> dict[str, Any]:
    """A route of one model that moves up to the wider one, whatever is wrong."""
    return {
        "id": "p",
        "panel": {"proposers": ["f"]},
        "escalate_to": "wide",
        "escalate_on": ALL,
        **more,
    }


def widened(layer: int = 2) -> list[PanelMember]:
    """The rows of the wider panel, whose proposers have this layer."""
    return [
        row(name, role, USED, count, layer=layer + (role == AGGREGATOR))
        for name, role, count in WIDENED
    ]


def refusing(text: str) -> list[Step]:
    """A stream that refuses in the field that is there for it."""
    refusal = {"index": 0, "delta": {"refusal": text}, "finish_reason": None}
    chunks = [{"id": "c", "choices": [refusal]}, finish(), usage(INPUT_TOKENS, 4), "[DONE]"]
    return [HEAD, *map(event, chunks), END]


def check_widened(end: Completion, reason: str, *dropped: PanelMember) -> None:
    """The wider panel has answered, and all of it is told."""
    assert text_of(end) == "It is six."
    assert (end.route.route, end.route.escalated) == ("wide", True)
    assert end.route.reason == RouteReason.ROUTE_REASON_ESCALATION
    assert told(end) == report(
        *dropped,
        *widened(),
        route="wide",
        asked="p",
        escalated=True,
        escalation_reason=reason,
    )


# by each trigger


POOR: Final[Mapping[str, tuple[str, Script | Sequence[Step], Mapping[str, Any]]]] = {
    "refuses": ("refusal", says(REFUSAL[:15], REFUSAL[15:]), {}),
    "refuses slowly": ("refusal", says(*REFUSAL), {}),
    "is filtered": ("refusal", says(reason="content_filter"), {}),
    "is empty": ("empty", says(tokens=4), {}),
    "is blank": ("empty", says(" ", "\n"), {}),
    "is cut at once": ("cut", says("I", reason="length"), {}),
    "is no JSON": ("invalid_output", says("It is ", "seven."), {"response_format": OBJECT}),
    "is broken JSON": ("invalid_output", says('{"n": ', "7"), {"response_format": OBJECT}),
    "is no object": ("invalid_output", says("[", "7]"), {"response_format": OBJECT}),
    "does not fit": ("invalid_output", says('{"n": ', '"7"}'), {"response_format": FITTING}),
    "says too much": ("invalid_output", says('{"n": 7, "m": 8}'), {"response_format": FITTING}),
    "is cut JSON": ("cut", says('{"n": ', reason="length"), {"response_format": FITTING}),
    "is unsure": ("uncertain", says("It may", " be seven.", logprob=-1.5), {}),
}


@pytest.mark.parametrize("name", POOR)
async def test_a_poor_answer_is_dropped_for_that_of_the_wider_panel(name):
    reason, script, fields = POOR[name]
    async with world({"f": script, **THREE}, routes=[fast(), WIDE]) as found:
        ends = [await found.complete(way, question(**fields)) for way in WAYS]

        assert len(found.asked("f")) == len(WAYS)
        await found.is_left()
    for end in ends:
        check_widened(end, reason, row("f", PROPOSER, UNUSED, 4))


async def test_a_refusal_in_its_own_field_is_one():
    async with world({"f": refusing("No."), **THREE}, routes=[fast(), WIDE]) as found:
        streamed = await found.stream()
    assert "refusal_delta" not in streamed.kinds
    check_widened(completed(streamed), "refusal", row("f", PROPOSER, UNUSED, 4))


async def test_what_is_cut_or_filtered_in_the_end_is_dropped_where_nobody_has_seen_it():
    for word, reason in (("length", "cut"), ("content_filter", "refusal")):
        script = says("It is a long ", "story", reason=word)
        async with world({"f": script, **THREE}, routes=[fast(), WIDE]) as found:
            end = await found.unary()
        check_widened(end, reason, row("f", PROPOSER, UNUSED, 4))


async def test_doubt_in_the_beginning_of_a_long_answer_leaves_it_there():
    chunks = [delta("word ") for _ in range(8)]
    for chunk in chunks:
        tokens = [{"token": "t", "logprob": -2.0, "bytes": None, "top_logprobs": []}] * 3
        chunk["choices"][0]["logprobs"] = {"content": tokens, "refusal": None}
    endless: list[Step] = [HEAD, *map(event, chunks), Hang()]
    async with world({"f": endless, **THREE}, routes=[fast(), WIDE]) as found:
        streamed = await found.stream()

        await found.is_left()
    left, *rest = told(completed(streamed)).members
    assert left == row("f", PROPOSER, CANCELLED, tokens_of(10, inputs=3, estimated=True))
    assert rest == widened()
    assert streamed.text == "It is six."


@pytest.mark.parametrize("way", WAYS)
async def test_proposals_that_come_down_to_different_things_are_dropped(way):
    scripts = {
        "f": says("The answer is 1.", tokens=7),
        "g": says("The answer is 2.", tokens=8),
        "h": says("The answer is 3."),
        **THREE,
    }
    async with world(scripts, routes=[fast(panel=TWO), WIDE]) as found:
        end = await found.complete(way)

        assert found.asked("h") == []
    dropped = (row("f", PROPOSER, UNUSED, 7), row("g", PROPOSER, UNUSED, 8))
    check_widened(end, "disagreement", *dropped)


@pytest.mark.parametrize("way", WAYS)
async def test_the_poor_answer_of_a_mixing_panel_is_dropped_with_all_that_led_to_it(way):
    scripts = {
        "f": says("It is one.", tokens=7),
        "g": says("It is two.", tokens=8),
        "h": says(REFUSAL, tokens=9),
        **THREE,
    }
    async with world(scripts, routes=[fast(panel=TWO), WIDE]) as found:
        end = await found.complete(way)
    check_widened(
        end,
        "refusal",
        row("f", PROPOSER, UNUSED, 7),
        row("g", PROPOSER, UNUSED, 8),
        row("h", AGGREGATOR, UNUSED, 9),
    )


# not otherwise


@dataclass(frozen=True)
class Kept:
    """An answer, of what request, on what route."""

    pieces: Sequence[str]
    asked: Mapping[str, Any] = field(default_factory=dict)
    route: Mapping[str, Any] = field(default_factory=dict)
    how: Mapping[str, Any] = field(default_factory=dict)


KEPT: Final[Mapping[str, Kept]] = {
    "is good": Kept(("It is ", "seven.")),
    "is short": Kept(("No.",)),
    "begins as a refusal": Kept(("I'm sorry", " to hear that.")),
    "is JSON": Kept(('{"n": ', "7}"), {"response_format": OBJECT}),
    "fits": Kept(('{"n": ', "7}"), {"response_format": FITTING}),
    "is sure": Kept(("It is", " seven."), how={"logprob": -0.1}),
    "is cut where the caller wants it": Kept(
        ("It is",), {"sampling": SamplingOptions(max_output_tokens=2)}, how={"reason": "length"}
    ),
    "refuses, and that is no trigger": Kept((REFUSAL,), route={"escalate_on": ["empty"]}),
    "is no JSON, and that is no trigger": Kept(
        ("It is seven.",), {"response_format": OBJECT}, {"escalate_on": ["refusal"]}
    ),
    "is unsure, and that is no trigger": Kept(
        ("It may", " be."), route={"escalate_on": ["refusal"]}, how={"logprob": -9.0}
    ),
    "refuses, and nothing is a trigger": Kept((REFUSAL,), route={"escalate_on": []}),
    "refuses, and there is no wider route": Kept((REFUSAL,), route={"escalate_to": ""}),
    "refuses, and the wider route is unknown": Kept((REFUSAL,), route={"escalate_to": "no"}),
    "refuses, and the wider route is for another plan": Kept(
        (REFUSAL,), route={"escalate_to": "rich"}
    ),
    "refuses, and the caller wants no other": Kept(
        (REFUSAL,), {"constraints": RoutingConstraints(disable_escalation=True)}
    ),
    "refuses, and none may be dropped": Kept((REFUSAL,), route={"max_escalations": 0}),
}


@pytest.mark.parametrize("name", KEPT)
async def test_any_other_answer_is_kept(name):
    kept = KEPT[name]
    rich = {"id": "rich", "panel": PANEL, "plans": ["rich"]}
    scripts = {"f": says(*kept.pieces, **kept.how), **THREE}
    routes = [fast(**kept.route), WIDE, rich]
    async with world(scripts, routes=routes, plans=[{"id": "rich"}]) as found:
        ends = [await found.complete(way, question(**kept.asked)) for way in WAYS]

        assert [exchange.json["model"] for exchange in found.models.exchanges] == ["f", "f"]
    for end in ends:
        assert text_of(end) == "".join(kept.pieces)
        assert (end.route.route, end.route.escalated) == ("p", False)
        assert told(end) == report(row("f", PROPOSER, USED, 4))


@pytest.mark.parametrize("way", WAYS)
async def test_how_sure_a_model_is_only_callers_see_who_asked(way):
    script = says("It is", " seven.", logprob=-0.1)
    async with world({"f": script, **THREE}, routes=[fast(), WIDE]) as found:
        silent = await found.complete(way)
        asked = await found.complete(way, question(sampling=SamplingOptions(logprobs=True)))
        streamed = await found.stream()

        assert [exchange.json["logprobs"] for exchange in found.models.exchanges] == [True] * 3
    assert [len(end.choices[0].logprobs) for end in (silent, asked)] == [0, 6]
    assert not any(event.text_delta.logprobs for event in streamed.events)
    assert list(silent.warnings) == []


async def test_a_plan_without_the_wider_route_keeps_the_answer():
    key = {"id": "k", "key_env": "KEY", "plan": "narrow"}
    plans = [{"id": "narrow", "routes": ["p"]}]
    async with world(
        {"f": says(REFUSAL), **THREE},
        routes=[fast(), WIDE],
        plans=plans,
        keys=[key],
        environment={"KEY": "secret-of-k"},
    ) as found:
        streamed = await found.stream(metadata=(("authorization", "Bearer secret-of-k"),))

        assert [exchange.json["model"] for exchange in found.models.exchanges] == ["f"]
    assert streamed.text == REFUSAL
    assert told(completed(streamed)) == report(row("f", PROPOSER, USED, 4))


async def test_several_choices_of_one_model_are_kept():
    def two(exchange: Any) -> Sequence[Step]:
        texts = [delta("It is seven.", index) for index in range(exchange.json["n"])]
        ends = [finish("stop", 0), finish("stop", 1), usage(INPUT_TOKENS, 4), "[DONE]"]
        return [HEAD, *map(event, [*texts, *ends]), END]

    one = {"id": "one", "panel": {"proposers": ["a"]}}
    async with world({"f": two, **THREE}, routes=[fast(escalate_to="one"), one]) as found:
        sampling = SamplingOptions(candidate_count=2)
        streamed = await found.stream(question(sampling=sampling, response_format=OBJECT))
    end = completed(streamed)
    assert [choice.message.parts[0].text for choice in end.choices] == ["It is seven."] * 2
    assert told(end) == report(row("f", PROPOSER, USED, 4))


@pytest.mark.parametrize(
    ("most", "asked", "reason"),
    [(0, "f", ""), (1, "fg", "refusal"), (2, "fgabcz", "refusal")],
)
@pytest.mark.parametrize("way", WAYS)
async def test_a_request_moves_up_as_often_as_its_route_says(most, asked, reason, way):
    scripts = {"f": says(REFUSAL, tokens=7), "g": says(REFUSAL, tokens=8), **THREE}
    middle = fast(id="middle", panel={"proposers": ["g"]}, max_escalations=4)
    routes = [fast(escalate_to="middle", max_escalations=most), middle, WIDE]
    async with world(scripts, routes=routes) as found:
        end = await found.complete(way)

        assert "".join(exchange.json["model"] for exchange in found.models.exchanges) == asked
    route = ("p", "middle", "wide")[most]
    statuses = [UNUSED] * most + [USED]
    rows = [
        row("f", PROPOSER, statuses[0], 7),
        *([row("g", PROPOSER, statuses[1], 8, layer=2)] if most else []),
        *(widened(layer=4) if most == 2 else []),
    ]
    assert text_of(end) == ("It is six." if most == 2 else REFUSAL)
    assert told(end) == report(
        *rows, route=route, asked="p", escalated=bool(most), escalation_reason=reason
    )


@pytest.mark.parametrize("word", ["length", "content_filter"])
async def test_what_the_caller_has_seen_is_not_dropped(word):
    script = says("It is a long ", "story", reason=word)
    async with world({"f": script, **THREE}, routes=[fast(), WIDE]) as found:
        streamed = await found.stream()

        assert [exchange.json["model"] for exchange in found.models.exchanges] == ["f"]
    assert streamed.text == "It is a long story"
    assert told(completed(streamed)) == report(row("f", PROPOSER, USED, 4))


async def test_an_answer_is_shown_as_it_comes_once_it_can_not_be_a_refusal():
    begun: list[Step] = [HEAD, event(delta("It is ")), Hang()]
    async with world({"f": begun, **THREE}, routes=[fast(), WIDE]) as found:
        async with grpc.aio.insecure_channel(found.running.service.grpc_address) as channel:
            call = CompletionServiceStub(channel).Complete(CompleteRequest(spec=question()))
            kinds = []
            async with asyncio.timeout(LIMIT_S):
                async for response in call:
                    kinds.append(response.WhichOneof("event"))
                    if kinds[-1] == "text_delta":
                        break
            call.cancel()
        await found.is_left()
    assert kinds == ["started", "route_selected", "text_delta"]


# the head, and signs of life before it


HEARTBEAT_S: Final = 0.25
LATE_S: Final = 0.35  # So late that the head has gone out.


def sse(response: httpx.Response) -> tuple[str, Mapping[str, Any]]:
    """The text of a stream, and its last chunk."""
    lines = [line[6:] for line in response.text.splitlines() if line[:6] == "data: "]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice["delta"].get("content", "") for choice in choices), chunks[-1]


def chat_row(name: str, role: str, status: str, tokens: int) -> dict[str, Any]:
    """A row of `waymark.models`."""
    return {
        "provider": name,
        "model": name,
        "role": role,
        "status": status,
        "input_tokens": INPUT_TOKENS,
        "output_tokens": tokens,
    }


def late(script: Script) -> Script:
    """The same, when the head has gone out."""
    return lambda exchange: [Pause(LATE_S), *steps_of(script, exchange)]


async def test_a_head_that_has_gone_out_settles_the_route():
    scripts = {"f": late(says(REFUSAL)), **THREE}
    server = {"heartbeat_s": HEARTBEAT_S}
    async with world(scripts, routes=[fast(), WIDE], server=server) as found:
        response = await found.chat(stream=True)

        assert [exchange.json["model"] for exchange in found.models.exchanges] == ["f"]
    said, last = sse(response)
    assert ": hb" in response.text.splitlines()
    assert response.headers["speechify-route"] == last["waymark"]["route"] == last["model"] == "p"
    assert said == REFUSAL
    assert last["waymark"] == {
        "route": "p",
        "requested_route": "p",
        "escalated": False,
        "escalation_reason": None,
        "degraded": False,
        "stopped_early": False,
        "models": [chat_row("f", PROPOSER, USED, 4)],
    }


async def test_signs_of_life_come_while_a_wider_panel_works_and_name_it():
    scripts = {"f": says(REFUSAL), **{name: late(script) for name, script in THREE.items()}}
    server = {"heartbeat_s": HEARTBEAT_S}
    async with world(scripts, routes=[fast(), WIDE], server=server) as found:
        response = await found.chat(stream=True)
    said, last = sse(response)
    assert response.text.startswith(": hb\n\n: hb\n\n")
    assert response.headers["speechify-route"] == last["waymark"]["route"] == "wide"
    assert last["model"] == "wide"
    assert said == "It is six."
    assert last["waymark"] == {
        "route": "wide",
        "requested_route": "p",
        "escalated": True,
        "escalation_reason": "refusal",
        "degraded": False,
        "stopped_early": False,
        "models": [
            chat_row("f", PROPOSER, UNUSED, 4),
            *[chat_row(name, role, USED, count) for name, role, count in WIDENED],
        ],
    }


@pytest.mark.parametrize("is_late", [False, True], ids=["in time", "too late"])
async def test_heartbeats_over_grpc_come_before_anything_is_told(is_late):
    refusal = says(REFUSAL)
    others = {name: late(script) for name, script in THREE.items()}
    scripts = {"f": late(refusal) if is_late else refusal, **others}
    options = StreamOptions(include_final_messages=True)
    options.heartbeat_interval.FromMilliseconds(round(HEARTBEAT_S * 1000))
    async with world(scripts, routes=[fast(), WIDE]) as found:
        streamed = await found.stream(options=options)
    route = "p" if is_late else "wide"
    known = ["heartbeat", "started", "route_selected", "text_delta", "choice_finished", "completed"]
    assert [kind for kind, _ in groupby(streamed.kinds)] == known
    assert dict(streamed.head)["trunkline-panel"] == route
    assert streamed.text == (REFUSAL if is_late else "It is six.")
    end = completed(streamed)
    assert (end.route.route, end.panel.route, end.panel.escalated) == (route, route, not is_late)


async def test_the_head_of_a_whole_answer_names_the_route_that_served():
    async with world({"f": says(REFUSAL), **THREE}, routes=[fast(), WIDE]) as found:
        whole = await found.chat()
        streamed = await found.chat(stream=True)
    assert whole.headers["speechify-route"] == whole.json()["model"] == "wide"
    assert whole.json()["waymark"] == sse(streamed)[1]["waymark"]
    assert streamed.headers["speechify-route"] == "wide"
    assert REFUSAL[:9] not in streamed.text


# who pays


COST: Final = INPUT_TOKENS * 1_000  # Of what is read, and two for each token that is written.
ENOUGH_FOR_ONE: Final = 400_000
PLENTY: Final = 1_000_000_000


@pytest.mark.parametrize("way", WAYS)
async def test_without_credits_for_the_wider_panel_the_answer_is_kept(way, tmp_path: Path):
    scripts = {"f": says(REFUSAL), **THREE}

    def script(exchange: Exchange) -> Any:
        return steps_of(scripts[exchange.json["model"]], exchange)

    async with (
        upstream(script) as models,
        desk(
            new_sqlite(tmp_path),
            models.url,
            providers=[provider(name, models.url) for name in scripts],
            models=[model(name, name, **PRICES) for name in scripts],
            routes=[fast(), WIDE],
        ) as found,
    ):
        key = await found.new_key(plan="prepaid")
        stub = CompletionServiceStub(found.channel)
        asked = question(sampling=SamplingOptions(max_output_tokens=20))

        async def ask() -> Completion:
            if way == "unary":
                unary = CompleteUnaryRequest(spec=asked)
                return (await stub.CompleteUnary(unary, metadata=key)).completion
            request = CompleteRequest(spec=asked, stream_options=FULL)
            events = [event async for event in stub.Complete(request, metadata=key)]
            return events[-1].completed.completion

        await found.grant(ENOUGH_FOR_ONE)
        kept = await ask()
        left = await found.balance()
        await found.grant(PLENTY)
        wider = await ask()
        then = await found.balance()
    assert text_of(kept) == REFUSAL
    assert told(kept) == report(row("f", PROPOSER, USED, 4))
    cost = COST + 4 * 2_000
    assert kept.usage.cost.amount_nanos == ENOUGH_FOR_ONE - left.available_nanos == cost
    check_widened(wider, "refusal", row("f", PROPOSER, UNUSED, 4))
    cost = 5 * COST + (4 + 1 + 2 + 3 + 6) * 2_000
    spent = left.available_nanos + PLENTY - then.available_nanos
    assert wider.usage.cost.amount_nanos == spent == cost
    assert (left.held_nanos, then.held_nanos) == (0, 0)
