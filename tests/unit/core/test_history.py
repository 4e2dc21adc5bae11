"""Conversations that providers would refuse, made whole."""

from trunkline.v1.message_pb2 import Message, Part, Role, ToolCall, ToolResult
from trunkline_server.core.history import UNANSWERED, whole

USER, ASSISTANT, TOOL = Role.ROLE_USER, Role.ROLE_ASSISTANT, Role.ROLE_TOOL


def said(text: str, role: "Role.ValueType" = USER) -> Message:
    return Message(role=role, parts=[Part(text=text)])


def calls(*ids: str) -> Message:
    parts = [Part(tool_call=ToolCall(id=id_, name="look", arguments_json="{}")) for id_ in ids]
    return Message(role=ASSISTANT, parts=parts)


def results(*ids: str) -> Message:
    parts = [
        Part(tool_result=ToolResult(tool_call_id=id_, parts=[Part(text="rain")])) for id_ in ids
    ]
    return Message(role=TOOL, parts=parts)


def missing(*ids: str) -> Message:
    parts = [
        Part(
            tool_result=ToolResult(
                tool_call_id=id_, tool_name="look", is_error=True, parts=[Part(text=UNANSWERED)]
            )
        )
        for id_ in ids
    ]
    return Message(role=TOOL, parts=parts)


def test_what_is_whole_stays_as_it_is():
    messages = [said("hi"), calls("a", "b"), results("a"), results("b"), said("rain", ASSISTANT)]

    assert whole(messages) == messages
    assert whole([said("hi")]) == [said("hi")]
    assert whole([]) == []


def test_ids_that_come_again_are_told_apart_and_the_last_keeps_its_own():
    messages = [
        *(said("1"), calls("c0", "c1"), results("c1", "c0"), said("ok", ASSISTANT)),
        *(said("2"), calls("c0"), results("c0"), said("ok", ASSISTANT)),
        *(said("3"), calls("c0"), results("c0")),
    ]
    before = [Message.FromString(message.SerializeToString()) for message in messages]

    assert whole(messages) == [
        *(said("1"), calls("c0-1", "c1"), results("c1", "c0-1"), said("ok", ASSISTANT)),
        *(said("2"), calls("c0-2"), results("c0-2"), said("ok", ASSISTANT)),
        *(said("3"), calls("c0"), results("c0")),
    ]
    assert messages == before


def test_a_call_that_nobody_answered_has_an_answer_that_says_so():
    messages = [said("1"), calls("a", "b"), results("a"), said("never mind")]

    assert whole(messages) == [
        *(said("1"), calls("a", "b"), results("a"), missing("b"), said("never mind"))
    ]


def test_of_the_last_calls_all_have_a_result_or_none():
    messages = [said("1"), calls("a", "b"), results("b")]

    assert whole(messages) == [*messages, missing("a")]


def test_the_last_calls_may_be_open():
    assert whole([said("1"), calls("a")]) == [said("1"), calls("a")]
