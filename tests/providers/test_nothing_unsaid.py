"""What a request says reaches every provider, or the caller is told that it did not."""

import json

import pytest

from tests.providers.readings import candidate
from tests.providers.specs import (
    NOW,
    PNG,
    WEATHER,
    ask,
    assistant,
    call,
    message,
    result,
    tools,
    user,
)
from trunkline.v1.completion_spec_pb2 import CompletionSpec, ToolChoice
from trunkline.v1.message_pb2 import Media, Message, Part, Role
from trunkline_server.core.ports import Prompt
from trunkline_server.core.validation import check_spec
from trunkline_server.providers.registry import DIALECTS
from trunkline_server.providers.translator import UpstreamRequest

PICTURE = Part(image=Media(data=PNG, mime_type="image/png"))


def encode(dialect: str, spec: CompletionSpec) -> UpstreamRequest:
    """What is sent."""
    check_spec(spec)
    prompt = Prompt(spec, stream=True)
    return DIALECTS[dialect].translator.encode(candidate(dialect), prompt)


def dropped(request: UpstreamRequest) -> list[str]:
    """What the caller is told to be missing."""
    return [warning.field for warning in request.warnings if warning.code == "PARAMETER_DROPPED"]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("last", [[], [user("And Rome?")]], ids=["at the end", "before a turn"])
def test_words_beside_results_are_said_after_all_of_them(dialect, last):
    spec = ask(
        user("Oslo?"),
        assistant(call("call_1"), call("call_2")),
        message(Role.ROLE_TOOL, result("call_1", "first"), "by the way"),
        message(Role.ROLE_TOOL, result("call_2", "second")),
        *last,
        tool_options=tools(WEATHER),
    )

    request = encode(dialect, spec)

    text = request.body.decode()
    assert text.index("first") < text.index("second") < text.index("by the way")
    assert text.count("by the way") == 1
    assert not last or text.index("by the way") < text.index("And Rome?")
    assert dropped(request) == []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("role", [Role.ROLE_SYSTEM, Role.ROLE_DEVELOPER])
def test_a_picture_among_instructions_is_missed_aloud_and_once(dialect, role):
    instructions = [message(role, "Look:", PICTURE, PICTURE), message(role, PICTURE)]

    request = encode(dialect, ask(*instructions, user("Hi")))

    assert b"Look:" in request.body
    assert dropped(request) == ["spec.messages[].parts[].image"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_tool_that_must_be_called_is_offered_whatever_else_is_allowed(dialect):
    choice = ToolChoice(tool_name="now", allowed_tool_names=["get_weather"])

    body = json.loads(encode(dialect, ask(tool_options=tools(WEATHER, NOW, choice=choice))).body)

    offered = body["toolConfig"]["tools"] if dialect == "bedrock" else body["tools"]
    assert '"now"' in json.dumps(offered)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "empty", [Message(role=Role.ROLE_USER), user(""), user("", name="ada")], ids=range(3)
)
def test_a_turn_of_the_user_that_says_nothing_is_none(dialect, empty):
    request = encode(dialect, ask(empty, user("Hi")))

    assert request.body == encode(dialect, ask()).body
