"""For a reader who does not see single deltas, text that arrives together is one; nothing else changes."""

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    RefusalDelta,
    TextDelta,
)
from trunkline.v1.completion_pb2 import FinishReason, TokenLogprob
from trunkline_server.core.ports import AttemptFacts
from trunkline_server.providers.answer import AnswerEvents

STOP = FinishReason.FINISH_REASON_STOP


def answer() -> AnswerEvents:
    return AnswerEvents(
        family="openai",
        model="m",
        shows_reasoning=False,
        choices=2,
        mint_id=lambda: "id",
        facts=AttemptFacts(),
        merges=True,
    )


def text(text: str, part_index: int = 0, choice_index: int = 0) -> CompleteResponse:
    delta = TextDelta(choice_index=choice_index, part_index=part_index, text=text)
    return CompleteResponse(text_delta=delta)


def test_text_of_one_read_is_one_delta_and_that_of_the_next_one_another():
    events = answer()

    reads = []
    for pieces in (["Hel", "lo", ","], [" wor", "ld"], ["."], []):
        for piece in pieces:
            events.text(0, piece)
        reads.append(events.take())

    assert reads == [[text("Hello,")], [text(" world")], [text(".")], []]
    assert events.output_chars == len("Hello, world.")


def test_whatever_stands_between_two_pieces_keeps_its_place():
    events = answer()

    events.text(0, "a")
    events.text(0, "b")
    events.refusal(0, "no")
    events.text(0, "c")
    events.text(1, "d")
    events.text(0, "e")
    events.break_part(0)
    events.text(0, "f")
    events.text(0, "g")
    events.finish(0, STOP, "stop")
    taken = events.take()

    assert taken == [
        text("ab"),
        CompleteResponse(refusal_delta=RefusalDelta(part_index=1, text="no")),
        text("c", part_index=2),
        text("d", choice_index=1),
        text("e", part_index=2),
        text("fg", part_index=3),
        CompleteResponse(
            choice_finished=ChoiceFinished(finish_reason=STOP, native_finish_reason="stop")
        ),
    ]


def test_text_after_the_end_of_its_choice_is_left_out_and_not_counted():
    events = answer()

    events.text(0, "a")
    events.finish(0, STOP, "stop")
    events.text(0, "b")
    events.text(1, "c")
    events.text(0, "d")
    taken = events.take()

    assert [event.text_delta for event in taken if event.HasField("text_delta")] == [
        TextDelta(text="a"),
        TextDelta(text="c", choice_index=1),
    ]
    assert events.output_chars == len("ac")


def test_pieces_with_log_probabilities_stay_apart():
    events = answer()
    token = TokenLogprob(token="b", logprob=-0.5)

    events.text(0, "a")
    events.text(0, "b", [token])
    events.text(0, "c")
    taken = events.take()

    judged = CompleteResponse(text_delta=TextDelta(text="b", logprobs=[token]))
    assert taken == [text("a"), judged, text("c")]
