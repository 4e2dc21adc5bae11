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
from trunkline.v1.message_pb2 import Media, Message, Part, Reasoning, Role
from trunkline_server.core.ports import Prompt
from trunkline_server.core.validation import check_spec
from trunkline_server.providers.registry import DIALECTS
from trunkline_server.providers.translator import UpstreamRequest

# Whose turns are chat messages with a role and a content.
CHATS = [name for name in DIALECTS if name not in ("anthropic", "bedrock", "gemini")]
# Of these, whoever takes an empty one.
TAKES_EMPTY = [name for name in CHATS if name != "cohere"]
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


@pytest.mark.parametrize("dialect", CHATS)
@pytest.mark.parametrize(
    ("part", "kind"),
    [(Part(reasoning=Reasoning(text="Hm")), "reasoning"), (Part(refusal="No"), "refusal")],
)
def test_what_only_a_model_says_is_left_out_beside_results_and_missed_aloud(dialect, part, kind):
    def asked(*beside: Part | str) -> CompletionSpec:
        turn = message(Role.ROLE_TOOL, result("call_1", "4"), *beside, name="get_weather")
        return ask(user("Oslo?"), assistant(call("call_1")), turn, tool_options=tools(WEATHER))

    request = encode(dialect, asked(part))

    assert request.body == encode(dialect, asked()).body
    assert dropped(request) == [f"spec.messages[].parts[].{kind}"]


@pytest.mark.parametrize("dialect", CHATS)
def test_words_beside_results_are_not_said_in_the_name_of_the_tool(dialect):
    turn = message(Role.ROLE_TOOL, result("call_1", "4"), "by the way", name="get_weather")
    spec = ask(user("Oslo?"), assistant(call("call_1")), turn, tool_options=tools(WEATHER))

    messages = json.loads(encode(dialect, spec).body)["messages"]

    assert messages[-1] == {"role": "user", "content": "by the way"}


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


INSTRUCTIONS = message(Role.ROLE_SYSTEM, "Tell a joke.")


@pytest.mark.parametrize("dialect", TAKES_EMPTY)
@pytest.mark.parametrize(
    ("turns", "sent"),
    [
        ([user("Hi"), assistant("Hello"), user("")], ["Hi", "Hello", ""]),
        ([user(""), assistant("Hello"), user("Hi")], ["", "Hello", "Hi"]),
        (
            [user("Hi"), assistant("a"), user("", name="ada"), assistant("b"), user("Bye")],
            ["Hi", "a", "", "b", "Bye"],
        ),
        ([INSTRUCTIONS, user("")], ["Tell a joke.", ""]),
        ([INSTRUCTIONS, user(""), user("", "")], ["Tell a joke.", ""]),
        (
            [user("Hi"), INSTRUCTIONS, user(""), assistant("Hello"), user("Bye")],
            ["Hi", "Tell a joke.", "Hello", "Bye"],
        ),
        ([user(""), INSTRUCTIONS, user("Hi")], ["Tell a joke.", "Hi"]),
        ([user("Hi"), assistant("Hello"), user(""), user("Bye")], ["Hi", "Hello", "Bye"]),
    ],
)
def test_a_turn_that_says_nothing_stays_where_the_turns_would_not_alternate(dialect, turns, sent):
    messages = json.loads(encode(dialect, ask(*turns)).body)["messages"]

    assert [written["content"] for written in messages] == sent
