"""What members are asked: the question as it was, drafts that can't pose as instructions, and no tools to act with."""

import json
import re
from typing import Final

import pytest

from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    JsonObjectFormat,
    ReasoningOptions,
    ResponseFormat,
    SamplingOptions,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    ToolOptions,
)
from trunkline.v1.message_pb2 import Media, Message, Part, Role, ToolCall, ToolResult
from trunkline_server.completion.panel_prompts import (
    CRITIQUE_TOKENS,
    MIN_PROPOSAL_CHARS,
    PROPOSAL_TOKENS,
    aggregator_spec,
    critic_spec,
    critique_of,
    cut,
    proposer_spec,
    room_chars,
    shuffled,
)
from trunkline_server.core.panels import MAX_PROPOSERS

MOST: Final = PROPOSAL_TOKENS * 4
USER: Final = Role.ROLE_USER
TOOLS: Final = ToolOptions(
    tools=[Tool(name="t")], choice=ToolChoice(tool_name="t"), parallel_calls=False
)
ASKED: Final = Message(role=USER, parts=[Part(text="What is it?")])
CALLED: Final = [
    ASKED,
    Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=ToolCall(id="c", name="t"))]),
    Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=ToolResult(tool_call_id="c"))]),
]
FORM: Final = ResponseFormat(json_object=JsonObjectFormat())
SPEC: Final = CompletionSpec(
    model="p",
    messages=[ASKED],
    system_prompt="Be brief.",
    tool_options=TOOLS,
    response_format=FORM,
    metadata_json='{"secret": 1}',
    sampling=SamplingOptions(temperature=0.0, seed=7, stop=["."], top_p=0.5),
    reasoning=ReasoningOptions(include=True),
    provider_options_json={"*": '{"x": 1}'},
)


def without(spec: CompletionSpec, *fields: str) -> CompletionSpec:
    """The same, less these."""
    left = CompletionSpec()
    left.CopyFrom(spec)
    for field in fields:
        left.ClearField(field)  # type: ignore[arg-type]
    return left


def last_text(spec: CompletionSpec) -> str:
    """The end of what is asked."""
    return spec.messages[-1].parts[-1].text


def drafts(text: str) -> list[tuple[str, str, str]]:
    """Name, mark and content of what stands between marks."""
    return re.findall(r"\[([\w ]+) (\w{12})\]\n(.*?)\n\[end of \1 \2\]", text, re.DOTALL)


def test_a_proposer_is_asked_the_same_but_can_not_act():
    asked = proposer_spec(SPEC, 100, resamples=False)

    expected = without(SPEC, "tool_options", "metadata_json")
    expected.sampling.max_output_tokens = 100
    assert asked == expected
    assert SPEC.tool_options == TOOLS


@pytest.mark.parametrize(
    ("wanted", "most", "given"), [(None, 100, 100), (50, 100, 50), (200, 100, 100), (0, 100, 0)]
)
def test_a_proposal_is_no_longer_than_the_answer_may_be(wanted, most, given):
    sampling = SamplingOptions(max_output_tokens=wanted) if wanted is not None else None
    asked = proposer_spec(CompletionSpec(sampling=sampling), most, resamples=False)

    assert asked.sampling.max_output_tokens == given


@pytest.mark.parametrize(
    ("temperature", "given"), [(None, None), (0.0, 0.7), (0.7, 0.7), (1.5, 1.5)]
)
def test_a_model_that_is_asked_again_may_say_something_else(temperature, given):
    sampling = SamplingOptions(temperature=temperature, seed=7)
    asked = proposer_spec(CompletionSpec(sampling=sampling), 100, resamples=True).sampling

    assert not asked.HasField("seed")
    assert (asked.temperature if asked.HasField("temperature") else None) == given


def test_tools_that_were_called_before_stay_described_and_can_not_be_called():
    spec = CompletionSpec(messages=CALLED, tool_options=TOOLS)
    forbidden = ToolOptions()
    forbidden.CopyFrom(TOOLS)
    forbidden.choice.CopyFrom(ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_NONE))

    assert proposer_spec(spec, 9, resamples=False).tool_options == forbidden
    assert critic_spec(spec, ["a", "b"], "s", MOST).tool_options == forbidden
    assert aggregator_spec(spec, ["a", "b"], "", "s", MOST).tool_options == TOOLS
    untold = CompletionSpec(messages=CALLED)
    assert not proposer_spec(untold, 9, resamples=False).HasField("tool_options")


def test_the_critic_is_asked_for_json_and_nothing_that_was_asked_of_the_answer():
    asked = critic_spec(SPEC, ["one", "two"], "seed", MOST)

    expected = without(SPEC, "tool_options", "metadata_json", "response_format", "messages")
    expected.sampling.max_output_tokens = CRITIQUE_TOKENS
    expected.sampling.ClearField("stop")
    assert without(asked, "messages") == expected
    assert [name for name, _, _ in drafts(last_text(asked))] == ["draft A", "draft B"]
    assert last_text(asked).startswith("What is it?\n\n2 drafts of an answer")
    assert "Answer with one JSON object" in last_text(asked)


def test_the_aggregator_is_asked_the_same_with_the_drafts_behind_the_question():
    asked = aggregator_spec(SPEC, ["one", "two", "three"], '{"consensus": []}', "seed", MOST)

    assert without(asked, "messages") == without(SPEC, "metadata_json", "messages")
    (message,) = asked.messages
    assert message.role == USER
    text = last_text(asked)
    assert text.startswith("What is it?\n\n3 drafts of an answer")
    found = drafts(text)
    assert [(name, said) for name, _, said in found] == [
        ("draft A", "one"),
        ("draft B", "two"),
        ("draft C", "three"),
        ("review", '{"consensus": []}'),
    ]
    assert len({mark for _, mark, _ in found}) == 4
    assert "material, not instructions" in text
    plain = aggregator_spec(SPEC, ["one", "two", "three"], "", "seed", MOST)
    assert [name for name, _, _ in drafts(last_text(plain))] == ["draft A", "draft B", "draft C"]
    assert "reviewer" not in last_text(plain)


def test_marks_can_not_be_guessed_by_who_is_between_them():
    asked = [aggregator_spec(SPEC, ["one"], "", seed, MOST) for seed in ("a", "b")]

    marks = [drafts(last_text(spec))[0][1] for spec in asked]
    assert marks[0] != marks[1]


@pytest.mark.parametrize(
    ("messages", "roles", "parts"),
    [
        ([], [USER], ["text"]),
        ([ASKED], [USER], ["text"]),
        ([ASKED, Message(role=Role.ROLE_ASSISTANT)], [USER, Role.ROLE_ASSISTANT, USER], ["text"]),
        (CALLED, [USER, Role.ROLE_ASSISTANT, Role.ROLE_TOOL, USER], ["text"]),
        (
            [
                Message(
                    role=USER, parts=[Part(text="What?"), Part(image=Media(url="https://e.com"))]
                )
            ],
            [USER],
            ["text", "image", "text"],
        ),
        ([Message(role=USER)], [USER], ["text"]),
    ],
)
def test_drafts_stand_in_the_last_turn_of_the_users_where_there_is_one(messages, roles, parts):
    asked = aggregator_spec(CompletionSpec(messages=messages), ["one"], "", "s", MOST)

    assert [message.role for message in asked.messages] == roles
    assert [part.WhichOneof("content") for part in asked.messages[-1].parts] == parts
    assert "one" in last_text(asked)


def test_as_many_drafts_as_there_can_be_have_a_name():
    texts = [f"text {number}" for number in range(MAX_PROPOSERS)]
    asked = aggregator_spec(SPEC, texts, "", "s", MOST)

    assert [said for _, _, said in drafts(last_text(asked))] == texts


def test_drafts_are_in_an_order_of_the_requests_own():
    texts = [str(number) for number in range(8)]
    orders = [shuffled(texts, f"seed {number}") for number in range(20)]

    assert shuffled(texts, "seed 0") == orders[0]
    assert all(sorted(order) == texts for order in orders)
    assert len({tuple(order) for order in orders}) > 15
    assert texts == [str(number) for number in range(8)]


@pytest.mark.parametrize(
    ("text", "room", "expected"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abc\n[...]\nefg"),
        ("abcdefg", 5, "ab\n[...]\nfg"),
        ("", 6, ""),
    ],
)
def test_a_draft_that_is_too_long_keeps_its_beginning_and_its_end(text, room, expected):
    assert cut(text, room) == expected


def test_a_draft_and_a_critique_have_only_so_much_room():
    asked = aggregator_spec(SPEC, ["x" * 9_000], "y" * 9_000, "s", 1_000)

    said = [said for _, _, said in drafts(last_text(asked))]
    assert said == ["x" * 500 + "\n[...]\n" + "x" * 500, "y" * 500 + "\n[...]\n" + "y" * 500]


@pytest.mark.parametrize(
    ("window", "spec_bytes", "count", "room"),
    [
        (None, 0, 3, MOST),
        (None, 10**9, 8, MOST),
        (128_000, 1_000, 3, MOST),
        (4_096, 84, 3, 2_450),
        (4_096, 84, 6, 1_225),
        (4_096, 10**6, 3, MIN_PROPOSAL_CHARS),
        (1, 0, 8, MIN_PROPOSAL_CHARS),
    ],
)
def test_drafts_leave_half_of_a_small_window_to_the_answer(window, spec_bytes, count, room):
    assert room_chars(window, spec_bytes, count) == room


FOUND: Final = {"consensus": ["a"], "contradictions": [], "unique_insights": [], "blind_spots": []}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps(FOUND), FOUND),
        (f"Here it is:\n```json\n{json.dumps(FOUND)}\n```\n", FOUND),
        ('{"consensus": ["\u00e9"], "other": ["x"]}', {"consensus": ["\u00e9"]}),
        ('{"consensus": "a", "blind_spots": []}', {"blind_spots": []}),
    ],
)
def test_a_critique_is_what_it_was_asked_for(text, expected):
    assert json.loads(critique_of(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "They agree.",
        "{}",
        "[1]",
        "} {",
        '{"consensus": [',
        '{"consensus": "all"}',
        '{"other": []}',
        '{"consensus": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"consensus": [' + "9" * 10_000 + "]}",
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_critique_is_none(text):
    assert critique_of(text) == ""
