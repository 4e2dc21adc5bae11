"""Tools and time: how many run at once, what is left of a deadline, and leaving at any moment."""

import asyncio
import json
import random
from collections import Counter
from typing import Any, Final

import grpc
import pytest

from tests.edges.observed import LIMIT_S, spec, stream
from tests.edges.test_server_tools import (
    FAILED,
    STARTED,
    SUCCEEDED,
    Turn,
    World,
    calls,
    completed,
    inline,
    once,
    states,
    world,
)
from tests.faults.waiting import until
from tests.support.upstream import Exchange, Hang, Pause, Step, answer, upstream, whole
from trunkline.v1.completion_pb2 import FinishReason
from trunkline.v1.completion_service_pb2 import CompleteRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import RegisteredSource, Tool, ToolOptions

pytestmark = pytest.mark.once

FINAL: Final = StreamOptions(include_final_messages=True)


class Gauge:
    """A tool that counts how many of its calls run at once."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.order: list[str] = []

    async def __call__(self, exchange: Exchange) -> list[Step]:
        name = exchange.json["data"]["name"]
        self.order.append(name)
        for key in (name, "all"):
            self.running[key] += 1
        for key in (name, "all"):
            self.most[key] = max(self.most[key], self.running[key])
        if self.running["alone"] and self.running["all"] > 1:
            self.most["beside the one that runs alone"] += 1
        await asyncio.sleep(self._for_s)
        for key in (name, "all"):
            self.running[key] -= 1
        return whole({})


async def test_four_calls_run_at_once_and_an_exclusive_one_alone():
    gauge = Gauge(0.03)
    turn = calls(
        *((f"a{n}", "lookup", json.dumps({"n": n})) for n in range(6)),
        ("x1", "alone", "{}"),
        *((f"b{n}", "lookup", json.dumps({"n": 10 + n})) for n in range(6)),
        ("x2", "alone", '{"again": 1}'),
    )
    async with upstream(gauge) as tool:
        registered = {"description": "d", "url": f"{tool.url}/"}
        sections: dict[str, Any] = {
            "tools": [
                {"name": "lookup", **registered},
                {"name": "alone", "exclusive": True, **registered},
            ],
            "egress": {"allowed_hosts": [f"127.0.0.1:{tool.port}"]},
        }
        async with world(once(turn, answer("Done.")), **sections) as found:
            tools = [Tool(name=n, registered=RegisteredSource()) for n in ("lookup", "alone")]
            streamed = await found.ask(*tools)

    assert streamed.text == "Done."
    assert dict(gauge.most) == {"lookup": 4, "alone": 1, "all": 4}
    assert gauge.order == ["lookup"] * 6 + ["alone"] + ["lookup"] * 6 + ["alone"]
    ids = [m["tool_call_id"] for m in found.told(1) if m["role"] == "tool"]
    assert ids == [*(f"a{n}" for n in range(6)), "x1", *(f"b{n}" for n in range(6)), "x2"]


async def test_a_tool_leaves_the_model_time_to_answer_before_the_callers_deadline():
    async with world(once(calls(("c1", "lookup", "{}")), answer("Done.")), lambda _: [Hang()]) as w:
        asked = spec("m", tool_options=ToolOptions(tools=[w.server_tool()]))
        began_s = asyncio.get_running_loop().time()
        streamed = await stream(w.running.service, asked, FINAL, timeout_s=1.2)
        took_s = asyncio.get_running_loop().time() - began_s

    assert streamed.text == "Done."
    assert states(streamed) == [("lookup", STARTED), ("lookup", FAILED)]
    assert 0.7 < took_s < 1.2


async def test_without_time_for_another_call_the_model_is_asked_to_answer():
    def script(number: int, exchange: Exchange) -> Turn:
        if exchange.json.get("tool_choice") == "none":
            return answer("Enough.")
        return calls((f"c{number}", "lookup", json.dumps({"n": number})))

    async with world(script, lambda _: [Pause(0.15), *whole({})]) as found:
        asked = spec("m", tool_options=ToolOptions(tools=[found.server_tool()], max_hops=20))
        streamed = await stream(found.running.service, asked, FINAL, timeout_s=1.0)

    end = completed(streamed)
    assert streamed.text == "Enough."
    assert end.choices[0].finish_reason == FinishReason.FINISH_REASON_HOP_LIMIT
    assert 3 <= len(found.tool.exchanges) <= 6
    assert found.model.exchanges[-1].json["tool_choice"] == "none"


@pytest.mark.parametrize(
    "count", [pytest.param(60, id="short"), pytest.param(2_000, id="long", marks=pytest.mark.slow)]
)
async def test_who_leaves_at_any_moment_leaves_nothing_behind(count):
    """Whatever was going on: a turn of the model, calls that start, run or end, or the last answer."""
    chance = random.Random(7)
    effects: Counter[str] = Counter()

    def effect(exchange: Exchange) -> list[Step]:
        effects[exchange.json["data"]["id"]] += 1
        return [Pause(0.01 * chance.random()), *whole({})]

    def script(number: int, exchange: Exchange) -> Turn:
        told = sum(m["role"] == "tool" for m in exchange.json["messages"])
        if told >= 10:
            return [Pause(0.01 * chance.random()), *answer("Done.")]
        turn = calls(*((f"c{told + n}", "lookup", json.dumps({"n": told + n})) for n in range(5)))
        return [Pause(0.005 * chance.random()), *turn]

    at_once = asyncio.Semaphore(10)
    async with (
        world(script, effect) as found,
        grpc.aio.insecure_channel(found.running.service.grpc_address) as channel,
    ):
        stub: Any = CompletionServiceStub(channel)
        service = found.running.service
        await found.ask(found.server_tool())
        before = len(asyncio.all_tasks())

        async def ask_and_leave(after_s: float) -> str:
            asked = spec("m", tool_options=ToolOptions(tools=[found.server_tool(), inline()]))
            async with at_once:
                call = stub.Complete(CompleteRequest(spec=asked), timeout=LIMIT_S)
                text = ""
                try:
                    async with asyncio.timeout(after_s):
                        async for event in call:
                            text += event.text_delta.text
                except TimeoutError:
                    call.cancel()
                    return "left"
                return text

        ends = Counter(
            await asyncio.gather(*(ask_and_leave(0.12 * chance.random()) for _ in range(count)))
        )
        await until(lambda: service.admission.in_flight == 0, "all have ended")
        await until(lambda: found.tool.open_sockets == 0, "the tool is left alone")
        # What serves the upstreams' own connections may stay, a few for each that is kept open.
        await until(lambda: len(asyncio.all_tasks()) <= before + 40, "no task is left")

    assert set(ends) <= {"left", "Done."}
    assert ends["left"] > count / 4
    assert set(effects.values()) == {1}


async def test_an_answer_with_many_turns_counts_all_of_them_once():
    async with world(
        once(*(calls((f"c{n}", "lookup", json.dumps({"n": n}))) for n in range(3)), answer("Done."))
    ) as found:
        streamed = await World(found.running, found.model, found.tool).ask(found.server_tool())

    end = completed(streamed)
    assert (end.usage.input_tokens, end.usage.output_tokens) == (4 * 9, 4 * 4)
    assert [call.hop for call in end.server_tool_calls] == [0, 1, 2]
    assert {call.state for call in end.server_tool_calls} == {SUCCEEDED}
    assert end.choices[0].finish_reason == FinishReason.FINISH_REASON_STOP
