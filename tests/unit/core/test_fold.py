"""Events of a stream to the choices of a completion."""

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    Heartbeat,
    PartCompleted,
    ReasoningDelta,
    RefusalDelta,
    StreamReset,
    TextDelta,
    ToolCallDelta,
)
from trunkline.v1.completion_pb2 import Choice, Completion, FinishReason, TokenLogprob
from trunkline.v1.message_pb2 import (
    Artifact,
    Message,
    Part,
    ProviderState,
    Reasoning,
    Role,
    ToolCall,
)
from trunkline_server.core.fold import Fold, end

STATE = ProviderState(provider="p", model="m", data=b"opaque")


def text(piece: str, part: int = 0, choice: int = 0, *logprobs: TokenLogprob) -> CompleteResponse:
    """A delta of text."""
    delta = TextDelta(text=piece, part_index=part, choice_index=choice, logprobs=logprobs)
    return CompleteResponse(text_delta=delta)


def reasoning(piece: str, part: int = 0, summary: bool = False) -> CompleteResponse:
    """A delta of reasoning."""
    return CompleteResponse(
        reasoning_delta=ReasoningDelta(text=piece, part_index=part, summary=summary)
    )


def part_completed(part: Part, index: int = 0) -> CompleteResponse:
    """The final value of a part."""
    return CompleteResponse(part_completed=PartCompleted(part_index=index, part=part))


def folded(*batches: list[CompleteResponse], choices: int = 1) -> list[Choice]:
    """The choices that these events make."""
    fold = Fold()
    for batch in batches:
        fold.add(batch)
    found = [Choice(index=index) for index in range(choices)]
    fold.fill(found)
    return found


def assistant(*parts: Part, index: int = 0, logprobs: tuple[TokenLogprob, ...] = ()) -> Choice:
    """A choice with this message."""
    message = Message(role=Role.ROLE_ASSISTANT, parts=parts)
    return Choice(index=index, message=message, logprobs=logprobs)


def test_nothing_folds_to_a_message_without_parts():
    assert folded() == [assistant()]


def test_pieces_of_a_part_are_joined_in_order():
    assert folded([text("Hé"), text("l")], [], [text("lo")]) == [assistant(Part(text="Héllo"))]


def test_parts_stand_in_the_order_of_their_indexes():
    found = folded([text("answer", part=1), reasoning("because", part=0)], [text("!", part=1)])

    assert found == [
        assistant(Part(reasoning=Reasoning(text="because")), Part(text="answer!")),
    ]


def test_choices_do_not_mix():
    found = folded([text("a", choice=1), text("b"), text("c", choice=1)], choices=2)

    assert found == [assistant(Part(text="b")), assistant(Part(text="ac"), index=1)]


def test_a_tool_call_is_what_its_completed_part_says():
    call = ToolCall(id="c1", name="f", arguments_json='{"a":1}')
    delta = ToolCallDelta(id="c1", name="f", arguments_json='{"a"')

    found = folded(
        [CompleteResponse(tool_call_delta=delta)],
        [part_completed(Part(tool_call=call, provider_state=STATE))],
    )

    assert found == [assistant(Part(tool_call=call, provider_state=STATE))]


def test_state_without_content_joins_the_text_that_was_written():
    found = folded([text("Hello")], [part_completed(Part(provider_state=STATE))])

    assert found == [assistant(Part(text="Hello", provider_state=STATE))]


def test_the_state_of_reasoning_keeps_the_text_that_was_shown():
    found = folded(
        [reasoning("first "), reasoning("then", summary=True)],
        [part_completed(Part(reasoning=Reasoning(summary=True), provider_state=STATE))],
    )

    part = Part(reasoning=Reasoning(text="first then", summary=True), provider_state=STATE)
    assert found == [assistant(part)]


def test_redacted_reasoning_has_no_text():
    part = Part(reasoning=Reasoning(redacted=True), provider_state=STATE)

    assert folded([part_completed(part)]) == [assistant(part)]


def test_a_refusal_is_a_part_of_its_own():
    found = folded([CompleteResponse(refusal_delta=RefusalDelta(text=t)) for t in ("I ", "won't")])

    assert found == [assistant(Part(refusal="I won't"))]


def test_log_probabilities_are_kept_in_order():
    one, two = TokenLogprob(token="a", logprob=-1), TokenLogprob(token="b", logprob=-2)

    found = folded([text("a", 0, 0, one)], [text("b", 0, 0, two)])

    assert found == [assistant(Part(text="ab"), logprobs=(one, two))]


def test_events_without_content_are_passed_over():
    finished = CompleteResponse(choice_finished=ChoiceFinished())

    found = folded([CompleteResponse(heartbeat=Heartbeat()), text("a"), finished])

    assert found == [assistant(Part(text="a"))]


def test_choices_that_ended_are_listed_by_index():
    stop, length = FinishReason.FINISH_REASON_STOP, FinishReason.FINISH_REASON_LENGTH

    found = Completion()

    end(
        found.choices,
        [
            ChoiceFinished(choice_index=1, finish_reason=length, native_finish_reason="max"),
            ChoiceFinished(choice_index=0, finish_reason=stop, stop_sequence="END"),
        ],
    )

    assert list(found.choices) == [
        Choice(index=0, finish_reason=stop, stop_sequence="END"),
        Choice(index=1, finish_reason=length, native_finish_reason="max"),
    ]


def test_what_was_made_stays_over_hops_and_is_forgotten_where_a_hop_comes_again():
    first, second, third = (CompleteResponse(artifact=Artifact(id=i)) for i in ("a", "b", "c"))
    fold = Fold()

    fold.add([text("x"), first])
    fold.clear()
    fold.add([second, CompleteResponse(stream_reset=StreamReset(hop=1)), third])

    assert fold.artifacts == [Artifact(id="a"), Artifact(id="c")]
    assert fold.message(0) == Message(role=Role.ROLE_ASSISTANT)
