"""Models that go on calling tools, over every edge: the run ends, and the caller has an answer or is told why not."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc
import httpx
import pytest

from tests.edges.observed import LIMIT_S, spec, stream
from tests.edges.test_server_tools import SCHEMA, World, world
from tests.support.upstream import (
    END,
    Exchange,
    Step,
    answer,
    delta,
    event,
    finish,
    head,
    usage,
    whole,
)
from trunkline.v1.completion_pb2 import Completion, FinishReason
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import ToolOptions

pytestmark = pytest.mark.once

HOP_LIMIT: Final = FinishReason.FINISH_REASON_HOP_LIMIT
MAX_HOPS: Final = 20
ENOUGH: Final = "Enough."
Called = Sequence[tuple[str, str]]  # Names and arguments.


@dataclass(frozen=True)
class Loop:
    """What a model calls in its turns.

    Attributes:
        calls: by the number of the turn.
        turns: how often the model is asked, the last time without tools.
        effects: how often the tool runs.
    """

    calls: Callable[[int], Called]
    turns: int
    effects: int
    warnings: Sequence[str] = field(default=("TOOL_LOOP",))


def lookup(number: int) -> tuple[str, str]:
    """A call of the only tool."""
    return "lookup", json.dumps({"n": number})


LOOPS: Final[Mapping[str, Loop]] = {
    "the same": Loop(lambda n: [lookup(1)], turns=6, effects=4),
    "the same, written otherwise": Loop(
        lambda n: [("lookup", '{"n":1, "m" : 2}' if n % 2 else '{ "m":2,"n":1 }')],
        turns=6,
        effects=4,
    ),
    "A-B-A-B": Loop(lambda n: [lookup(n % 2)], turns=9, effects=7),
    "A-B-A-B, two in a turn": Loop(lambda n: [lookup(0), lookup(1)], turns=5, effects=7),
    "many of the same in a turn": Loop(lambda n: [lookup(1)] * 40, turns=2, effects=4),
    "many others in a turn": Loop(
        lambda n: [lookup(40 * n + k) for k in range(40)], turns=4, effects=96, warnings=()
    ),
    "unknown tools": Loop(lambda n: [(f"made_up_{n}", "{}")], turns=4, effects=0, warnings=()),
    "no arguments of the tool's": Loop(
        lambda n: [("lookup", '{"n": "seven"}')], turns=4, effects=0, warnings=()
    ),
    "ever new calls": Loop(lambda n: [lookup(n)], turns=4, effects=3, warnings=()),
}
COMMON: Final = ("the same", "A-B-A-B", "unknown tools")
# Those that end by the number of turns alone are asked for few.
HOPS: Final = {"ever new calls": 3, "many others in a turn": 3}


def said(exchange: Exchange, calls: Called, text: str) -> list[Step]:
    """A turn of the model's, streamed or whole."""
    called = [
        {"index": i, "id": f"c{i}", "type": "function", "function": {"name": n, "arguments": a}}
        for i, (n, a) in enumerate(calls)
    ]
    if exchange.json.get("stream"):
        if not called:
            return answer(text)
        said_calls = event({"choices": [{"index": 0, "delta": {"tool_calls": called}}]})
        last = [event(finish("tool_calls")), event(usage()), event("[DONE]"), END]
        return [head(), *([event(delta(text))] if text else []), said_calls, *last]
    message = {"role": "assistant", "content": text or None, "tool_calls": called or None}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if called else "stop"}
    counts = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return whole({"id": "c", "model": "m-1", "choices": [choice], "usage": counts})


@dataclass(frozen=True)
class Ended:
    """What the caller got. None where its dialect has no word for it."""

    text: str
    finish: int | None = None
    warnings: list[str] | None = None
    calls: Sequence[str] = ()


def options(found: World, hops: int) -> ToolOptions:
    """The only tool, and so many turns."""
    return ToolOptions(tools=[found.server_tool()], max_hops=hops)


def ended(end: Completion) -> Ended:
    """The end of an answer over gRPC."""
    (choice,) = end.choices
    parts = choice.message.parts
    return Ended(
        "".join(part.text for part in parts),
        choice.finish_reason,
        [warning.code for warning in end.warnings],
        [part.tool_call.name for part in parts if part.HasField("tool_call")],
    )


async def over_stream(found: World, hops: int) -> Ended:
    """gRPC's `Complete`."""
    asked = spec("m", tool_options=options(found, hops))
    streamed = await stream(
        found.running.service, asked, StreamOptions(include_final_messages=True)
    )
    assert streamed.error is None
    assert "tool_call_delta" not in streamed.kinds
    return ended(streamed.events[-1].completed.completion)


async def over_unary(found: World, hops: int) -> Ended:
    """gRPC's `CompleteUnary`."""
    asked = CompleteUnaryRequest(spec=spec("m", tool_options=options(found, hops)))
    async with grpc.aio.insecure_channel(found.running.service.grpc_address) as channel:
        response = await CompletionServiceStub(channel).CompleteUnary(asked, timeout=LIMIT_S)
    return ended(response.completion)


async def over_speko(found: World, hops: int) -> Ended:
    """`/v1/complete`."""
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "intent": {"language": "en"},
        "tools": [
            {
                "name": "lookup",
                "parameters": json.loads(SCHEMA),
                "source": {
                    "kind": "webhook",
                    "url": f"{found.tool.url}/lookup",
                    "secretRef": "hook",
                },
            }
        ],
        "maxToolHops": hops,
    }
    async with httpx.AsyncClient(timeout=LIMIT_S) as http:
        url = f"http://{found.running.service.http_address}/v1/complete"
        response = await http.post(url, json=body)
    names = [line[7:] for line in response.text.splitlines() if line[:7] == "event: "]
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line[:6] == "data: "]
    assert response.status_code == 200
    assert names[-1] == "done"
    return Ended(
        events[-1]["text"], calls=[call["name"] for call in events[-1].get("toolCalls", ())]
    )


EDGES: Final[Mapping[str, Callable[[World, int], Awaitable[Ended]]]] = {
    "Complete": over_stream,
    "CompleteUnary": over_unary,
    "/v1/complete": over_speko,
}


async def run(loop: Loop, edge: str, hops: int, *, obeys: bool) -> tuple[Ended, World]:
    """One answer of such a model."""
    turns = 0

    def script(number: int, exchange: Exchange) -> list[Step]:
        nonlocal turns
        turns += 1
        must_answer = exchange.json.get("tool_choice") == "none"
        return said(
            exchange, *(((), ENOUGH) if must_answer and obeys else (loop.calls(number), ""))
        )

    async with world(script) as found:
        return await EDGES[edge](found, hops), found


@pytest.mark.parametrize(
    ("name", "edge"),
    [
        *((name, "Complete") for name in LOOPS),
        *((name, edge) for name in COMMON for edge in ("CompleteUnary", "/v1/complete")),
    ],
)
async def test_a_model_that_goes_on_calling_is_stopped_and_answers(name, edge):
    loop = LOOPS[name]
    end, found = await run(loop, edge, HOPS.get(name, MAX_HOPS), obeys=True)

    assert end.text == ENOUGH
    assert end.finish in (HOP_LIMIT, None)
    assert end.warnings is None or set(end.warnings) == set(loop.warnings)
    assert list(end.calls) == []
    assert len(found.model.exchanges) == loop.turns
    assert len(found.tool.exchanges) == loop.effects
    choices = [exchange.json.get("tool_choice") for exchange in found.model.exchanges]
    assert choices == [None] * (loop.turns - 1) + ["none"]


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", COMMON)
async def test_a_model_that_calls_though_it_may_not_ends_the_answer_with_the_hop_limit(name, edge):
    loop = LOOPS[name]
    end, found = await run(loop, edge, MAX_HOPS, obeys=False)

    assert end.text == ""
    assert end.finish in (HOP_LIMIT, None)
    assert list(end.calls) == []
    assert len(found.model.exchanges) == loop.turns
    assert len(found.tool.exchanges) == loop.effects
