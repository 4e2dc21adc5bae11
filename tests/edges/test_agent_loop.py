"""What an agent loop may use altogether: turns, tokens, money and time. The last answer always has its part."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import httpx
import pytest

from tests.edges.observed import LIMIT_S, Streamed, spec, stream
from tests.edges.test_server_tools import calls
from tests.faults.waiting import until
from tests.support.service import model, provider, service
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Step,
    Upstream,
    delta,
    event,
    finish,
    head,
    upstream,
    usage,
    whole,
)
from trunkline.v1.catalog_service_pb2 import InstallSkillRequest
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_pb2 import Completion, CompletionWarning, FinishReason
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    CompleteUnaryRequest,
    StreamOptions,
)
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import (
    RegisteredSource,
    SamplingOptions,
    Tool,
    ToolOptions,
)
from trunkline_server.app import Service

pytestmark = pytest.mark.once

HOP_LIMIT: Final = FinishReason.FINISH_REASON_HOP_LIMIT
STOP: Final = FinishReason.FINISH_REASON_STOP
ENOUGH: Final = "Enough."
READ, WRITTEN = 1_000, 100  # Tokens of a turn.
PRICES: Final = {"input_price": 1.0, "output_price": 2.0}  # US dollars per million tokens.
TURN_NANOS: Final = 1_200_000
MODE: Final = {"id": "agent", "tools": ["lookup"], "max_hops": 20, "follow_ups": False}


def turn(exchange: Exchange, called: Sequence[tuple[str, str, str]], text: str) -> list[Step]:
    """A turn of READ and WRITTEN tokens, streamed or whole: what it calls, or its text."""
    made = [
        {"index": i, "id": id_, "type": "function", "function": {"name": name, "arguments": a}}
        for i, (id_, name, a) in enumerate(called)
    ]
    reason = "tool_calls" if made else "stop"
    if exchange.json.get("stream"):
        said = {"choices": [{"index": 0, "delta": {"tool_calls": made}}]} if made else delta(text)
        counts = usage(READ, WRITTEN)
        return [head(), *map(event, (said, finish(reason), counts, "[DONE]")), END]
    message = {"role": "assistant", "content": text or None, "tool_calls": made or None}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    counts = {
        "prompt_tokens": READ,
        "completion_tokens": WRITTEN,
        "total_tokens": READ + WRITTEN,
    }
    return whole({"id": "c", "model": "m-1", "choices": [choice], "usage": counts})


@dataclass
class Bench:
    """A service whose model calls a tool until it may not."""

    service: Service
    model: Upstream
    tool: Upstream

    @property
    def choices(self) -> list[Any]:
        """What each request to the model said of tools."""
        return [exchange.json.get("tool_choice") for exchange in self.model.exchanges]

    async def ask(self, **fields: Any) -> Streamed:
        """In the mode, streamed."""
        asked = spec("m", **{"mode": "agent", **fields})
        return await stream(self.service, asked, StreamOptions(include_final_messages=True))


@asynccontextmanager
async def bench(
    mode: dict[str, Any],
    *,
    prices: dict[str, float] | None = None,
    slow_s: float = 0.0,
    script: Callable[[int, Exchange], Sequence[Step]] | None = None,
    tool: Callable[[Exchange], Sequence[Step]] | None = None,
) -> AsyncIterator[Bench]:
    """With these limits of the mode; `slow_s` for each call of the tool."""
    number = 0

    def says(exchange: Exchange) -> Sequence[Step]:
        nonlocal number
        number += 1
        if script is not None:
            return script(number - 1, exchange)
        if exchange.json.get("tool_choice") == "none":
            return turn(exchange, (), ENOUGH)
        return turn(exchange, [(f"c{number}", "lookup", json.dumps({"n": number}))], "")

    def works(_: Exchange) -> Sequence[Step]:
        return [Pause(slow_s), *whole({"result": 42})]

    async with (
        upstream(says) as asked,
        upstream(tool or works) as called,
        service(
            providers=[provider("a", asked.url)],
            models=[model("m", "a", **(PRICES if prices is None else prices))],
            tools=[{"name": "lookup", "description": "Looks up.", "url": f"{called.url}/"}],
            egress={"allowed_hosts": [f"127.0.0.1:{called.port}"]},
            modes=[{**MODE, **mode}],
        ) as running,
    ):
        yield Bench(running, asked, called)


def reached(part: str) -> CompletionWarning:
    """What the caller is told of a budget."""
    return CompletionWarning(
        code="BUDGET_REACHED",
        field="spec.tool_options",
        message=f"{part}: this budget does not last for another turn with tools",
    )


def completed(found: Streamed) -> Completion:
    """The end of a stream."""
    assert found.error is None
    return found.events[-1].completed.completion


# Each edge gives text, how it finished, what it warned of and how many tokens it counted.
Ended = tuple[str, Any, list[tuple[str, str]], int]


def ended(completion: Completion) -> Ended:
    """Of an answer over gRPC."""
    (choice,) = completion.choices
    warnings = [(warning.code, warning.message) for warning in completion.warnings]
    text = "".join(part.text for part in choice.message.parts)
    return text, choice.finish_reason, warnings, completion.usage.total_tokens


async def over_stream(found: Bench) -> Ended:
    """gRPC's `Complete`."""
    return ended(completed(await found.ask()))


async def over_unary(found: Bench) -> Ended:
    """gRPC's `CompleteUnary`."""
    asked = CompleteUnaryRequest(spec=spec("m", mode="agent"))
    async with grpc.aio.insecure_channel(found.service.grpc_address) as channel:
        response = await CompletionServiceStub(channel).CompleteUnary(asked, timeout=LIMIT_S)
    return ended(response.completion)


async def over_theo(found: Bench) -> Ended:
    """`/api/v1/completions`."""
    body = {"prompt": "hi", "mode": "agent"}
    async with httpx.AsyncClient(timeout=LIMIT_S) as http:
        url = f"http://{found.service.http_address}/api/v1/completions"
        told = (await http.post(url, json=body)).json()
    warnings = [(warning["code"], warning["message"]) for warning in told["warnings"]]
    return told["content"], HOP_LIMIT, warnings, told["usage"]["total_tokens"]


EDGES: Final[dict[str, Callable[[Bench], Awaitable[Ended]]]] = {
    "Complete": over_stream,
    "CompleteUnary": over_unary,
    "/api/v1/completions": over_theo,
}


@pytest.mark.parametrize("edge", EDGES)
async def test_tokens_end_the_loop_while_there_are_enough_for_the_last_answer(edge):
    async with bench({"max_tokens": 10_000}) as found:
        text, finish_reason, warnings, tokens = await EDGES[edge](found)

    # Before each turn two turns of 1,100 and what the tool said, and 1,024 for the answer, are to be there.
    assert found.choices == [None] * 7 + ["none"]
    assert len(found.tool.exchanges) == 7
    assert (text, finish_reason) == (ENOUGH, HOP_LIMIT)
    told = reached("tokens")
    assert warnings == [(told.code, told.message)]
    assert tokens == 8 * (READ + WRITTEN) <= 10_000


@pytest.mark.parametrize(
    ("limits", "prices", "turns", "part"),
    [
        ({"max_cost_usd": 0.01}, None, 6, "cost"),
        # What has no price costs nothing.
        ({"max_cost_usd": 0.01, "max_hops": 4}, {}, 5, ""),
        # Of two budgets the one counts that ends first.
        ({"max_cost_usd": 0.01, "max_tokens": 5_000}, None, 3, "tokens"),
        # What an answer may take at most is kept back, but no more than a quarter.
        ({"max_tokens": 10_000, "max_output_tokens": 200}, None, 8, "tokens"),
        ({"max_tokens": 10_000, "max_output_tokens": 9_000}, None, 6, "tokens"),
        # The first turn is asked as it would be without tools, however little there is.
        ({"max_tokens": 1}, None, 2, "tokens"),
        (
            {"max_tokens": 10**9, "max_cost_usd": 1_000.0, "max_s": 3_600.0, "max_hops": 3},
            None,
            4,
            "",
        ),
        ({"max_hops": 1}, None, 2, ""),
    ],
)
async def test_whatever_ends_first_ends_the_loop_and_is_named(limits, prices, turns, part):
    async with bench(limits, prices=prices) as found:
        completion = completed(await found.ask())

    assert found.choices == [None] * (turns - 1) + ["none"]
    assert [tool["function"]["name"] for tool in found.model.exchanges[-1].json["tools"]] == [
        "lookup"
    ]
    assert len(found.tool.exchanges) == turns - 1
    assert list(completion.warnings) == ([reached(part)] if part else [])
    assert completion.choices[0].finish_reason == HOP_LIMIT
    assert completion.usage.total_tokens == turns * (READ + WRITTEN)
    if prices is None:
        assert completion.usage.cost.amount_nanos == turns * TURN_NANOS


async def test_time_ends_the_loop_and_leaves_some_for_the_last_answer():
    async with bench({"max_s": 0.8}, slow_s=0.15) as found:
        completion = completed(await found.ask())

    assert 3 <= len(found.tool.exchanges) <= 5
    assert found.choices == [None] * len(found.tool.exchanges) + ["none"]
    assert list(completion.warnings) == [reached("time")]
    assert completion.choices[0].finish_reason == HOP_LIMIT
    assert completion.timing.total.ToMilliseconds() < 5_000


async def test_a_tool_that_never_answers_is_cut_off_by_the_loops_time():
    async with bench({"max_s": 0.4}, tool=lambda _: [Hang()]) as found:
        began_s = asyncio.get_running_loop().time()
        completion = completed(await found.ask())
        took_s = asyncio.get_running_loop().time() - began_s

    assert found.choices == [None, "none"]
    assert list(completion.warnings) == [reached("time")]
    assert [call.error_message != "" for call in completion.server_tool_calls] == [True]
    assert 0.3 <= took_s < 5.0


async def test_a_loop_that_ends_by_itself_is_told_nothing_of_budgets():
    def script(number: int, exchange: Exchange) -> Sequence[Step]:
        if number == 0:
            return turn(exchange, [("c1", "lookup", "{}")], "")
        return turn(exchange, (), "42.")

    async with bench(
        {"max_tokens": 5_000, "max_cost_usd": 0.01, "max_s": 60.0}, script=script
    ) as b:
        completion = completed(await b.ask())

    assert b.choices == [None, None]
    assert list(completion.warnings) == []
    assert completion.choices[0].finish_reason == STOP


async def test_a_request_may_ask_for_fewer_or_more_turns_than_its_mode():
    async with bench({"max_hops": 2}) as found:
        for max_hops in (1, 4, None):
            options = ToolOptions() if max_hops is None else ToolOptions(max_hops=max_hops)
            await found.ask(tool_options=options)

    assert found.choices == [None, "none", *[None] * 4, "none", None, None, "none"]


async def test_without_a_mode_there_is_no_budget():
    tool = Tool(name="lookup", registered=RegisteredSource())
    async with bench({"max_tokens": 1}) as found:
        options = ToolOptions(tools=[tool], max_hops=3)
        completion = completed(await found.ask(mode="", tool_options=options))

    assert found.choices == [None, None, None, "none"]
    assert list(completion.warnings) == []


async def test_an_answers_own_limit_is_what_is_kept_back_for_it():
    sampling = SamplingOptions(max_output_tokens=200)
    async with bench({"max_tokens": 10_000}) as found:
        await found.ask(sampling=sampling)

    assert len(found.choices) == 8


async def test_the_caller_sees_the_loop_go_on():
    def script(number: int, exchange: Exchange) -> Sequence[Step]:
        if exchange.json.get("tool_choice") == "none":
            return turn(exchange, (), ENOUGH)
        named = [(f"c{number}{k}", "lookup", json.dumps({"n": number, "k": k})) for k in "ab"]
        return calls(*named, text=f"Step {number}. ")

    async with bench({"max_hops": 2}, script=script) as found:
        streamed = await found.ask()

    def told(event: Any) -> Any:
        kind = event.WhichOneof("event")
        if kind == "server_tool_call":
            call = event.server_tool_call
            return call.hop, call.state
        if kind == "route_selected":
            return f"turn {event.route_selected.route.hop}"
        return event.text_delta.text if kind == "text_delta" else kind

    def both(hop: int) -> list[tuple[int, int]]:
        return [(hop, 1), (hop, 1), (hop, 2), (hop, 2)]

    assert [told(e) for e in streamed.events] == [
        *("started", "turn 0", "Step 0. ", *both(0)),
        *("turn 1", "Step 1. ", *both(1)),
        *("turn 2", ENOUGH, "choice_finished", "completed"),
    ]
    # Results stand in the order of the calls, whichever came first.
    results = [m for m in found.model.exchanges[2].json["messages"] if m["role"] == "tool"]
    assert [m["tool_call_id"] for m in results] == ["c0a", "c0b", "c1a", "c1b"]
    assert len(streamed.events[-1].completed.completion.transcript) == 4


@pytest.mark.parametrize("turn_number", [0, 1])
@pytest.mark.parametrize("at", ["the model", "the tool"])
async def test_who_leaves_in_the_middle_of_a_loop_leaves_nothing_behind(at, turn_number):
    """Before or after a skill was taken up: the request was prepared, and everything is given back."""
    hanging: list[Exchange] = []

    def script(number: int, exchange: Exchange) -> Sequence[Step]:
        if number == 0 and turn_number == 1:
            return calls(("s1", "activate_skill", '{"skill": "meeting-minutes"}'))
        if at == "the model":
            hanging.append(exchange)
            return [head(), event(delta("Well, ")), Hang()]
        return calls(("c1", "lookup", "{}"))

    def tool(exchange: Exchange) -> Sequence[Step]:
        hanging.append(exchange)
        return [Hang()]

    async with bench({}, script=script, tool=tool) as found:
        async with grpc.aio.insecure_channel(found.service.grpc_address) as channel:
            await CatalogServiceStub(channel).InstallSkill(
                InstallSkillRequest(slug="meeting-minutes"), timeout=LIMIT_S
            )
            call = CompletionServiceStub(channel).Complete(
                CompleteRequest(spec=spec("m", mode="agent")), timeout=LIMIT_S
            )
            reading = asyncio.ensure_future(_read(call))
            await until(lambda: len(hanging) == 1, f"{at} is asked")
            call.cancel()
            await asyncio.wait([reading])

        async with asyncio.timeout(LIMIT_S):
            await hanging[0].closed.wait()
        await until(lambda: found.service.admission.in_flight == 0, "the request has ended")

    assert len(found.model.exchanges) == turn_number + 1
    assert len(found.tool.exchanges) == (1 if at == "the tool" else 0)


async def _read(call: Any) -> None:
    async for _ in call:
        pass
