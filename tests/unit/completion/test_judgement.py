"""What is found wrong with an answer, and when enough of it is there to say that nothing is."""

import json
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

import pytest

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    ReasoningDelta,
    RefusalDelta,
    StreamReset,
    TextDelta,
    ToolCallDelta,
)
from trunkline.v1.completion_pb2 import FinishReason, ServerToolCall, TokenLogprob
from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    SamplingOptions,
    TextFormat,
)
from trunkline_server.completion.judgement import (
    ENOUGH_LOGPROBS,
    HELD_CHARS,
    MIN_LOGPROBS,
    UNCERTAIN_LOGPROB,
    Judgement,
    fits,
)
from trunkline_server.core.panels import Trigger

ALL: Final = frozenset(Trigger)
PLAIN: Final = CompletionSpec()
LIMITED: Final = CompletionSpec(sampling=SamplingOptions(max_output_tokens=9))
OBJECT: Final = CompletionSpec(response_format=ResponseFormat(json_object=JsonObjectFormat()))
TEXT: Final = CompletionSpec(response_format=ResponseFormat(text=TextFormat()))
REFUSAL: Final = "I'm sorry, but I can't help with that."
REASONS: Final = {
    "stop": FinishReason.FINISH_REASON_STOP,
    "length": FinishReason.FINISH_REASON_LENGTH,
    "filter": FinishReason.FINISH_REASON_CONTENT_FILTER,
    "refusal": FinishReason.FINISH_REASON_REFUSAL,
    "calls": FinishReason.FINISH_REASON_TOOL_CALLS,
}


def formed(schema: Any) -> CompletionSpec:
    """Asks for a form."""
    form = JsonSchemaFormat(name="f", schema_json=json.dumps(schema))
    return CompletionSpec(response_format=ResponseFormat(json_schema=form))


NUMBER: Final = formed(
    {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
)


def text(piece: str, *logprobs: float) -> CompleteResponse:
    """Some text."""
    tokens = [TokenLogprob(logprob=logprob) for logprob in logprobs]
    return CompleteResponse(text_delta=TextDelta(text=piece, logprobs=tokens))


CALL: Final = CompleteResponse(tool_call_delta=ToolCallDelta(name="t"))
SERVER_CALL: Final = CompleteResponse(server_tool_call=ServerToolCall(name="t"))
RESET: Final = CompleteResponse(stream_reset=StreamReset())
DENIAL: Final = CompleteResponse(refusal_delta=RefusalDelta(text="No."))
THOUGHT: Final = CompleteResponse(reasoning_delta=ReasoningDelta(text="Hm."))


def judged(
    *events: CompleteResponse,
    spec: CompletionSpec = PLAIN,
    triggers: frozenset[Trigger] = ALL,
    whole: bool = False,
) -> Judgement:
    """After these, each in a batch of its own."""
    judgement = Judgement(spec, triggers, whole=whole)
    for event in events:
        judgement.add([event])
    return judgement


def ended(*reasons: str) -> Sequence[ChoiceFinished]:
    """How the choices end."""
    return [ChoiceFinished(finish_reason=REASONS[reason]) for reason in reasons]


@pytest.mark.parametrize(
    ("events", "reason", "spec", "doubt"),
    [
        ([text("It is seven.")], "stop", PLAIN, None),
        ([text(REFUSAL)], "stop", PLAIN, Trigger.REFUSAL),
        ([text(REFUSAL[:9]), text(REFUSAL[9:])], "stop", PLAIN, Trigger.REFUSAL),
        ([DENIAL], "stop", PLAIN, Trigger.REFUSAL),
        ([text("It is seven.")], "filter", PLAIN, Trigger.REFUSAL),
        ([text("It is seven.")], "refusal", PLAIN, Trigger.REFUSAL),
        ([], "filter", PLAIN, Trigger.REFUSAL),
        ([], "stop", PLAIN, Trigger.EMPTY),
        ([text("\n ")], "stop", PLAIN, Trigger.EMPTY),
        ([THOUGHT], "stop", PLAIN, Trigger.EMPTY),
        ([], "length", LIMITED, Trigger.EMPTY),
        ([text("It is")], "length", PLAIN, Trigger.CUT),
        ([text("It is")], "length", LIMITED, None),
        ([text("It is seven.")], "stop", OBJECT, Trigger.INVALID_OUTPUT),
        ([text('{"n": 7}')], "stop", OBJECT, None),
        ([text('{"n": "7"}')], "stop", NUMBER, Trigger.INVALID_OUTPUT),
        ([text('{"n": 7}')], "stop", NUMBER, None),
        ([text('{"n": ')], "length", NUMBER, Trigger.CUT),
        ([text(REFUSAL)], "stop", NUMBER, Trigger.REFUSAL),
        ([text("It is seven.")], "stop", TEXT, None),
        ([text("Hm", *[-1.5] * 5)], "stop", PLAIN, Trigger.UNCERTAIN),
        ([text("Hm", *[-0.5] * 5)], "stop", PLAIN, None),
        ([text("Hm", *[-0.1] * 4), text("m", -9.0)], "stop", PLAIN, Trigger.UNCERTAIN),
        ([text("Hm", *[-1.5] * (MIN_LOGPROBS - 1))], "stop", PLAIN, None),
        ([text("Hm", *[UNCERTAIN_LOGPROB] * 5)], "stop", PLAIN, None),
        ([text(REFUSAL), RESET, text("It is seven.")], "stop", PLAIN, None),
        ([text("Hm", *[-9.0] * 5), RESET, text("Hm", *[-0.1] * 5)], "stop", PLAIN, None),
        ([text("It is seven."), RESET, text(REFUSAL)], "stop", PLAIN, Trigger.REFUSAL),
        ([DENIAL, RESET, text("It is seven.")], "stop", PLAIN, None),
        ([CALL, RESET, text(REFUSAL)], "stop", PLAIN, Trigger.REFUSAL),
        ([CALL], "calls", PLAIN, None),
        ([text(REFUSAL), CALL], "calls", PLAIN, None),
        ([SERVER_CALL], "length", OBJECT, None),
    ],
    ids=count(),
)
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_wrong_with_a_whole_answer_is_told(events, reason, spec, doubt, whole):
    judgement = judged(*events, spec=spec, whole=whole)

    assert judgement.doubt(ended(reason)) is doubt
    assert judged(*events, spec=spec, triggers=ALL - {doubt}).doubt(ended(reason)) is None


def test_one_choice_that_is_refused_is_enough():
    assert judged(text("Hm")).doubt(ended("stop", "filter")) is Trigger.REFUSAL


@pytest.mark.parametrize(
    ("events", "doubt"),
    [
        ([text(REFUSAL)], Trigger.REFUSAL),
        ([text("Hm", *[-1.5] * ENOUGH_LOGPROBS)], Trigger.UNCERTAIN),
        ([text("")], None),
        ([text("It is")], None),
        ([text('{"n": ')], None),
    ],
    ids=count(),
)
def test_what_goes_on_is_judged_by_what_can_not_change_any_more(events, doubt):
    assert judged(*events, spec=OBJECT).doubt(None) is doubt


@pytest.mark.parametrize(
    ("events", "spec", "is_made"),
    [
        ([], PLAIN, False),
        ([THOUGHT], PLAIN, False),
        ([DENIAL], PLAIN, False),
        ([text(" ")], PLAIN, False),
        ([text("I")], PLAIN, False),
        ([text("It is")], PLAIN, True),
        ([text(REFUSAL)], PLAIN, False),
        ([text("I"), text("t is")], PLAIN, True),
        ([text("It is"), RESET], PLAIN, False),
        ([text("It is"), RESET, text("I")], PLAIN, False),
        ([text("It is")], OBJECT, False),
        ([text("x" * (HELD_CHARS - 1))], OBJECT, False),
        ([text("x" * HELD_CHARS)], OBJECT, True),
        ([text("It is", -0.1)], PLAIN, False),
        ([text("It is", *[-0.1] * ENOUGH_LOGPROBS)], PLAIN, True),
        ([CALL], OBJECT, True),
        ([text("I"), SERVER_CALL], PLAIN, True),
    ],
    ids=count(),
)
def test_an_answer_is_held_back_until_nothing_more_can_be_said_against_it(events, spec, is_made):
    assert judged(*events, spec=spec).is_made is is_made
    # Nobody sees a whole answer before its end.
    assert not judged(*events, spec=spec, whole=True).is_made


def test_a_form_that_is_no_trigger_holds_nothing_back():
    assert judged(text("It is"), spec=OBJECT, triggers=frozenset({Trigger.REFUSAL})).is_made


@pytest.mark.parametrize(
    ("spec", "said", "is_fitting"),
    [
        (OBJECT, "{}", True),
        (OBJECT, ' {"n": [1]}\n', True),
        (OBJECT, "[1]", False),
        (OBJECT, "7", False),
        (OBJECT, "", False),
        (OBJECT, '```json\n{"n": 7}\n```', False),
        (OBJECT, '{"n": 7} or so', False),
        (OBJECT, "[" * 100_000, False),
        (OBJECT, "9" * 100_000, False),
        (NUMBER, '{"n": 7}', True),
        (NUMBER, '{"n": 7.5}', False),
        (NUMBER, "{}", False),
        (formed({"type": "array"}), "[1]", True),
        (formed({"$ref": "https://example.com/schema"}), '{"n": 7}', True),
        (formed({"type": "object", "properties": {"n": {"pattern": "("}}}), '{"n": "7"}', True),
    ],
    ids=count(),
)
def test_json_fits_what_was_asked_for(spec, said, is_fitting):
    assert fits(spec, said) is is_fitting
