"""What is left of a conversation when it is longer than a context window."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.v1.message_pb2 import Media, Message, Part, ProviderState, Role, ToolCall, ToolResult
from trunkline_server.core.window import FRAME_TOKENS, MEDIA_TOKENS, fitted, tokens_of

SYSTEM, DEVELOPER = Role.ROLE_SYSTEM, Role.ROLE_DEVELOPER
USER, ASSISTANT, TOOL = Role.ROLE_USER, Role.ROLE_ASSISTANT, Role.ROLE_TOOL
STAYING = (SYSTEM, DEVELOPER)


def said(role: "Role.ValueType", text: str) -> Message:
    return Message(role=role, parts=[Part(text=text)])


def called(*ids: str) -> Message:
    return Message(role=ASSISTANT, parts=[Part(tool_call=ToolCall(id=i, name="t")) for i in ids])


def answered(id_: str, role: "Role.ValueType" = TOOL) -> Message:
    return Message(role=role, parts=[Part(tool_result=ToolResult(tool_call_id=id_))])


def one(_: Message) -> int:
    """Each message counts the same."""
    return 1


def test_what_fits_stays_as_it_is():
    messages = [said(USER, "a"), said(ASSISTANT, "b"), said(USER, "c")]

    assert fitted(messages, 3, one) == (messages, 0)


def test_the_oldest_turns_go_whole():
    turns = [[said(USER, f"q{n}"), said(ASSISTANT, f"a{n}")] for n in range(4)]
    messages = [message for turn in turns for message in turn]

    assert fitted(messages, 5, one) == (messages[4:], 4)


def test_system_messages_stay_where_they_are():
    system, developer = said(SYSTEM, "be brief"), said(DEVELOPER, "be kind")
    last = said(USER, "c")
    messages = [system, said(USER, "a"), developer, said(ASSISTANT, "b"), last]

    assert fitted(messages, 0, one) == ([system, developer, last], 2)


def test_a_greeting_goes_before_the_first_turn():
    messages = [said(ASSISTANT, "hello"), said(USER, "a"), said(ASSISTANT, "b"), said(USER, "c")]

    assert fitted(messages, 3, one) == (messages[1:], 1)


def test_calls_and_their_results_of_the_last_turn_stay():
    old = [said(USER, "a"), called("1"), answered("1"), said(ASSISTANT, "b")]
    last = [said(USER, "c"), called("2", "3"), answered("2"), answered("3")]

    assert fitted([*old, *last], 0, one) == (last, 4)


def test_a_late_result_keeps_the_turn_of_its_call():
    messages = [
        said(USER, "a"), said(ASSISTANT, "b"), said(USER, "c"), called("1"), said(USER, "wait"), answered("1"),
    ]  # fmt: skip

    assert fitted(messages, 1, one) == (messages[2:], 2)


def test_an_id_that_is_used_again_means_the_latest_call():
    turn = [said(USER, "a"), called("1"), answered("1"), said(ASSISTANT, "b")]

    assert fitted([*turn, *turn, *turn], 4, one) == (turn, 8)


def test_nothing_is_made_of_nothing():
    assert fitted([], 0, one) == ([], 0)


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        (Message(role=USER), FRAME_TOKENS),
        (said(USER, "x" * 298), FRAME_TOKENS + 101),  # With the three bytes around it.
        (said(USER, "漢" * 100), FRAME_TOKENS + 101),
        (Message(role=USER, parts=[Part(image=Media(data=b"x" * 10_000_000))]), FRAME_TOKENS + MEDIA_TOKENS),
        (
            Message(role=TOOL, parts=[Part(tool_result=ToolResult(parts=[Part(image=Media(url="u"))]))]),
            2 * FRAME_TOKENS + MEDIA_TOKENS,
        ),
        (
            Message(role=ASSISTANT, parts=[Part(text="x" * 7, provider_state=ProviderState(data=b"y" * 90))]),
            FRAME_TOKENS + 4,
        ),
    ],
    ids=["empty", "English", "Chinese", "image", "image of a tool", "state of a provider"],
)  # fmt: skip
def test_tokens_are_estimated_from_bytes(message, tokens):
    assert tokens_of(message) == tokens


# Whatever is said in whatever order, against the definition, tried at every place.

ids = st.sampled_from("abc")
messages_of = st.lists(
    st.one_of(
        st.builds(said, st.sampled_from([SYSTEM, DEVELOPER, USER, USER, ASSISTANT]), st.text(max_size=8)),
        st.builds(called, ids),
        st.builds(called, ids, ids),
        st.builds(answered, ids, st.sampled_from([TOOL, USER])),
    ),
    max_size=14,
)  # fmt: skip


def pairs(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Where results are, with their calls: the nearest before."""
    found = []
    for i, message in enumerate(messages):
        for part in message.parts:
            if part.HasField("tool_result"):
                name = part.tool_result.tool_call_id
                before = [
                    c for c in range(i) if any(p.tool_call.id == name for p in messages[c].parts)
                ]
                found += [(max(before), i)] if before else []
    return found


def may_be_cut(messages: Sequence[Message], at: int) -> bool:
    """Does a turn begin here?"""
    before = [message.role for message in messages[:at] if message.role not in STAYING]
    begins = messages[at].role == USER and before[-1:] != [USER]
    return begins and not any(call < at <= result for call, result in pairs(messages))


@settings(max_examples=500, deadline=None)
@given(messages_of, st.integers(0, 200))
def test_no_more_is_dropped_than_must_be_and_nothing_that_must_not(messages, room_tokens):
    cuts = [0, *(at for at in range(len(messages)) if may_be_cut(messages, at))]
    kept = [[m for i, m in enumerate(messages) if i >= at or m.role in STAYING] for at in cuts]
    fitting = [some for some in kept if sum(map(tokens_of, some)) <= room_tokens]
    expected = fitting[0] if fitting else kept[-1]

    found, dropped = fitted(messages, room_tokens)

    assert found == expected
    assert dropped == len(messages) - len(expected)
