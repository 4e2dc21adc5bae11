"""What answers are made of beside text: images that models draw, and interfaces that are checked, over real sockets."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from tests.edges.errors import reason_of
from tests.edges.observed import LIMIT_S, spec, stream
from tests.support.service import model, provider, service
from tests.support.upstream import END, answer, chunk, delta, event, finish, head, upstream
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import (
    BuiltinSource,
    CompletionSpec,
    Tool,
    ToolOptions,
)
from trunkline_server.app import Service

RECORDINGS: Final = Path(__file__).parents[1] / "recordings"
PAINTER: Final = "gemini-2.5-flash-image"


def drawn(dialect: str, name: str = "image.sse") -> list[Any]:
    data = (RECORDINGS / dialect / name).read_bytes()
    kind = "text/event-stream" if name.endswith("sse") else "application/json"
    return [head(200, kind), chunk(data), END]


async def unary(served: Service, wanted: CompletionSpec) -> Completion:
    """The whole answer, over the channel that has no sockets."""
    channel: Any = served.channel
    request = CompleteUnaryRequest(spec=wanted)
    async with asyncio.timeout(LIMIT_S):
        answered = await CompletionServiceStub(channel).CompleteUnary(request)
    completion: Completion = answered.completion
    return completion


def pictures(artifacts: Any) -> list[tuple[str, str, bytes, str, str]]:
    return [(a.type, a.mime_type, a.data[:4], a.provider, a.model) for a in artifacts]


@pytest.mark.parametrize("dialect", ["gemini", "openrouter"])
async def test_an_image_comes_in_the_stream_and_in_the_whole_answer(dialect):
    picture = ("image", "image/png", b"\x89PNG", "p", PAINTER)
    wanted = spec(PAINTER, output_modalities=["text", "image"])
    for name in ("image.sse", "image.json"):
        async with (
            upstream(drawn(dialect, name)) as up,
            service(
                providers=[provider("p", up.url, dialect)], models=[model(PAINTER, "p")]
            ) as served,
        ):
            found = await stream(served, wanted)
            completion = await unary(served, wanted)

            assert found.code == grpc.StatusCode.OK
            artifacts = [e.artifact for e in found.events if e.WhichOneof("event") == "artifact"]
            assert pictures(artifacts) == [picture]
            assert pictures(completion.artifacts) == [picture]
            assert completion.artifacts[0].id.startswith("art_")
            assert completion.choices[0].message.parts[0].text.startswith(("Here is", "A dot:"))


async def test_who_does_not_draw_is_not_asked_to():
    async with (
        upstream(answer("no")) as dull,
        upstream(drawn("openrouter")) as up,
        service(
            providers=[provider("a", dull.url), provider("b", up.url, "openrouter")],
            models=[
                model("m-a", "a"),
                model("m-b", "b", capabilities=["vision", "image_output"]),
            ],
            routes=[{"id": "all", "candidates": ["m-a", "m-b"], "strategy": "ordered"}],
        ) as served,
    ):
        completion = await unary(served, spec(output_modalities=["image"]))
        refused = await stream(served, spec("m-a", output_modalities=["image"]))

    assert pictures(completion.artifacts) == [("image", "image/png", b"\x89PNG", "b", "m-b")]
    assert dull.exchanges == []
    assert reason_of(refused.error)[1] == "CAPABILITY_UNSUPPORTED"


async def test_an_interface_is_checked_on_its_way_whatever_the_pieces():
    text = 'Sure:\n```\nroot = Stack([a, b])\na = Text("x")\nb = Link("y", "javascript:alert(1)")\n```\n'
    async with (
        upstream(answer(*(text[i : i + 3] for i in range(0, len(text), 3)))) as up,
        service(providers=[provider("p", up.url)], models=[model("m", "p")]) as served,
    ):
        found = await stream(served, spec("m", mode="genui"))
        completion = await unary(served, spec("m", component_library="basic"))
        refused = await stream(served, spec("m", component_library="none"))

    passed = 'root = Stack([a, b])\na = Text("x")\n'
    deltas = [e.text_delta.text for e in found.events if e.WhichOneof("event") == "text_delta"]
    assert "".join(deltas) == passed
    assert [p.text for p in completion.choices[0].message.parts] == [passed]
    for whole in (completion, found.events[-1].completed.completion):
        assert whole.genui.library == "basic"
        assert [(w.code, w.field) for w in whole.warnings] == [
            ("GENUI_TEXT_DROPPED", ""),
            ("GENUI_UNSAFE_VALUE", "b"),
            ("GENUI_UNRESOLVED", ""),
        ]
    assert reason_of(refused.error)[1] == "INVALID_REQUEST"
    sent = up.exchanges[0].json["messages"][0]
    assert sent["role"] == "system"
    assert "OpenUI Lang" in sent["content"]


@pytest.mark.parametrize(
    ("mode", "text"),
    [("genui", 'root = Text("4")\n'), ("code", "```py\nprint(4)\n```\n")],
)
async def test_what_is_said_before_a_tool_is_called_spoils_nothing_of_the_answer(mode, text):
    arguments = json.dumps({"expression": "2+2"})
    call = {"index": 0, "id": "c1", "function": {"name": "calculator", "arguments": arguments}}
    said = delta("Let me see.")
    said["choices"][0]["delta"]["tool_calls"] = [call]
    calling = [head(), event(said), event(finish("tool_calls")), event("[DONE]"), END]
    builtin = Tool(name="calculator", builtin=BuiltinSource(name="calculator"))
    async with (
        upstream(
            lambda e: answer(text) if e.json["messages"][-1]["role"] == "tool" else calling
        ) as up,
        service(
            providers=[provider("p", up.url)],
            models=[model("m", "p", capabilities=["tools"])],
        ) as served,
    ):
        found = await stream(
            served,
            spec("m", mode=mode, tool_options=ToolOptions(tools=[builtin])),
            StreamOptions(include_final_messages=True),
        )
    completion = found.events[-1].completed.completion

    assert [p.text for p in completion.choices[0].message.parts] == [text]
    assert [a.text for a in completion.artifacts] == ["print(4)\n"] * (mode == "code")
