"""What tools of the gateway brought, kept for the request that answers the caller's own tool."""

import pytest

from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Part, Role, ToolCall, ToolResult
from trunkline_server.completion.kept import KEEP_S, MAX_KEPT, MAX_KEPT_BYTES, KeptTurns


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def called(call_id: str) -> Message:
    """A turn of the assistant that calls a tool."""
    return Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=ToolCall(id=call_id, name="f"))])


def answered(call_id: str, text: str = "42") -> Message:
    """The tool's answer."""
    result = ToolResult(tool_call_id=call_id, parts=[Part(text=text)])
    return Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)])


def asked() -> Message:
    """What the user said."""
    return Message(role=Role.ROLE_USER, parts=[Part(text="hi")])


TRANSCRIPT = [called("server-1"), answered("server-1")]
ASKED = CompletionSpec(messages=[asked()])


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> KeptTurns:
    """One transcript is kept, for the caller `shop`."""
    found = KeptTurns(clock)
    found.keep("shop", ASKED, ["inline-1", "inline-2"], TRANSCRIPT)
    return found


def following(*before: Message) -> CompletionSpec:
    """The next request of that conversation."""
    return CompletionSpec(messages=[asked(), *before, called("inline-1"), answered("inline-1")])


def test_it_is_put_before_the_call_that_it_led_to(kept):
    spec = following()

    restored = kept.restored("shop", spec)

    assert list(restored.messages) == [
        asked(),
        *TRANSCRIPT,
        called("inline-1"),
        answered("inline-1"),
    ]
    assert len(spec.messages) == 3


def test_it_is_put_there_again_for_each_further_request(kept):
    first = kept.restored("shop", following())

    assert kept.restored("shop", following()) == first


def test_a_caller_who_sent_the_transcript_gets_nothing_twice(kept):
    spec = following(*TRANSCRIPT)

    assert kept.restored("shop", spec) is spec


def test_calls_that_a_provider_numbers_anew_in_every_turn_are_told_apart(clock):
    first = [asked(), called("call_0"), answered("call_0", "mine")]
    found = KeptTurns(clock)
    transcript = [called("call_0"), answered("call_0", "the gateway's")]
    found.keep("shop", CompletionSpec(messages=first), ["call_1"], transcript)
    following = [called("call_1"), answered("call_1")]

    restored = found.restored("shop", CompletionSpec(messages=[*first, *following]))

    assert list(restored.messages) == [*first, *transcript, *following]


def test_another_caller_gets_nothing(kept):
    spec = following()

    assert kept.restored("other", spec) is spec


def test_another_conversation_gets_nothing_though_its_call_has_the_same_id(kept):
    other = Message(role=Role.ROLE_USER, parts=[Part(text="bye")])
    specs = [
        CompletionSpec(messages=[other, called("inline-1"), answered("inline-1")]),
        CompletionSpec(messages=[asked(), other, called("inline-1"), answered("inline-1")]),
        CompletionSpec(messages=following().messages, end_user_id="somebody else"),
        CompletionSpec(messages=following().messages, session_id="another one"),
    ]

    assert [kept.restored("shop", spec) is spec for spec in specs] == [True] * 4


@pytest.mark.parametrize(("after_s", "is_there"), [(KEEP_S - 1, True), (KEEP_S, False)])
def test_it_is_kept_for_a_while(kept, clock, after_s, is_there):
    spec = following()
    clock.now_s += after_s

    assert (kept.restored("shop", spec) is not spec) is is_there


def test_other_calls_are_left_alone(kept):
    spec = CompletionSpec(messages=[asked(), called("else"), answered("else")])

    assert kept.restored("shop", spec) is spec


def test_no_more_are_kept_than_there_is_room_for(kept):
    for number in range(MAX_KEPT):
        kept.keep("shop", ASKED, [f"new-{number}"], TRANSCRIPT)
    spec = following()
    newest = CompletionSpec(messages=[asked(), called(f"new-{MAX_KEPT - 1}")])

    assert kept.restored("shop", spec) is spec
    assert len(kept.restored("shop", newest).messages) == 4


def test_large_ones_push_out_the_oldest(kept):
    large = [called("s"), answered("s", "x" * (MAX_KEPT_BYTES // 3))]
    for number in range(4):
        kept.keep("shop", ASKED, [f"large-{number}"], large)
    sizes = [
        len(
            kept.restored("shop", CompletionSpec(messages=[asked(), called(f"large-{n}")])).messages
        )
        for n in range(4)
    ]

    assert sizes == [2, 2, 4, 4]


def test_an_answer_without_server_tools_keeps_nothing(clock):
    empty = KeptTurns(clock)
    empty.keep("shop", ASKED, ["inline-1"], [])
    spec = following()

    assert empty.restored("shop", spec) is spec
