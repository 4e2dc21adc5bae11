"""What research makes of what models and tools say."""

import json

import pytest

from trunkline.v1.completion_pb2 import Choice, Completion
from trunkline.v1.message_pb2 import Citation, Message, Part, Role, ToolCall, ToolResult
from trunkline_server.jobs.research import MAX_QUESTION_CHARS, questions_of, sources_of


@pytest.mark.parametrize(
    ("plan", "questions"),
    [
        ("1. How old?\n2) How large?\n", ["How old?", "How large?"]),
        ("- How old?\n* How old?\n\n• Who?", ["How old?", "Who?"]),
        ("a b\nc d\ne f\ng h", ["a b", "c d", "e f"]),
        ("None.", []),
        ("**none**", []),
        ("", []),
        ("x" * 1_000, ["x" * MAX_QUESTION_CHARS]),
        (" " * 1_000_000 + "x", []),
    ],
)
def test_a_plan_is_read_line_by_line_whatever_marks_its_items(plan, questions):
    assert questions_of(plan) == questions


def looked(arguments: str, *results: str, is_error: bool = False) -> list[Message]:
    """Turns in which a tool was called."""
    call = ToolCall(id="c", name="t", arguments_json=arguments)
    parts = [Part(text=result) for result in results]
    result = ToolResult(tool_call_id="c", parts=parts, is_error=is_error)
    return [
        Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=call)]),
        Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)]),
    ]


FOUND = {"results": [{"url": "https://a.org/1", "title": "One"}, {"link": "https://a.org/2"}]}


@pytest.mark.parametrize(
    ("turns", "sources"),
    [
        # A page that was fetched is the source, not what it links to.
        (looked('{"url": "https://a.org/"}', "See https://b.org"), [("https://a.org/", "")]),
        (looked('{"url": "https://a.org/"}', "404", is_error=True), []),
        (
            looked("{}", json.dumps(FOUND)),
            [("https://a.org/1", "One"), ("https://a.org/2", "")],
        ),
        (looked("{}", "At https://a.org/x, as said."), [("https://a.org/x", "")]),
        (looked("[1", '{"url": "javascript:alert(1)"}'), []),
        (looked('{"url": 7}', "[" * 100_000), []),
        (looked("{}", "[" * 20 + '{"url": "https://a.org"}' + "]" * 20), [("https://a.org", "")]),
    ],
)
def test_sources_are_what_tools_returned_addresses_of(turns, sources):
    found = sources_of(Completion(transcript=turns))

    assert [(citation.url, citation.title) for citation in found] == sources


def test_what_a_provider_cites_is_a_source_too():
    part = Part(text="It is.", citations=[Citation(url="https://a.org", title="A")])
    choice = Choice(message=Message(role=Role.ROLE_ASSISTANT, parts=[part]))

    assert sources_of(Completion(choices=[choice])) == [Citation(url="https://a.org", title="A")]
