"""Events of a stream in a few words."""

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    PartCompleted,
    ReasoningDelta,
    RefusalDelta,
    RouteSelected,
    StreamCompleted,
    StreamReset,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
)
from trunkline.v1.completion_pb2 import FINISH_REASON_STOP, Choice, Completion, FinishReason, Route
from trunkline.v1.message_pb2 import ROLE_ASSISTANT, Message, Part, ToolCall


def started(completion_id: str = "cmpl_1", request_id: str = "req_12345") -> CompleteResponse:
    return CompleteResponse(
        started=StreamStarted(completion_id=completion_id, request_id=request_id)
    )


def routed(hop: int = 0, model: str = "m") -> CompleteResponse:
    return CompleteResponse(
        route_selected=RouteSelected(route=Route(provider="p", model=model, hop=hop))
    )


def text_delta(text: str, part: int = 0, choice: int = 0) -> CompleteResponse:
    return CompleteResponse(text_delta=TextDelta(choice_index=choice, part_index=part, text=text))


def reasoning_delta(text: str, part: int = 0) -> CompleteResponse:
    return CompleteResponse(reasoning_delta=ReasoningDelta(part_index=part, text=text))


def refusal_delta(text: str, part: int = 0) -> CompleteResponse:
    return CompleteResponse(refusal_delta=RefusalDelta(part_index=part, text=text))


def call_delta(
    arguments_json: str, part: int = 0, call_id: str = "", name: str = "", index: int = 0
) -> CompleteResponse:
    return CompleteResponse(
        tool_call_delta=ToolCallDelta(
            part_index=part,
            tool_call_index=index,
            id=call_id,
            name=name,
            arguments_json=arguments_json,
        )
    )


def part_completed(part: Part, index: int = 0, choice: int = 0) -> CompleteResponse:
    return CompleteResponse(
        part_completed=PartCompleted(choice_index=choice, part_index=index, part=part)
    )


def call_part(call_id: str, name: str, arguments_json: str) -> Part:
    return Part(tool_call=ToolCall(id=call_id, name=name, arguments_json=arguments_json))


def finished(
    reason: "FinishReason.ValueType" = FINISH_REASON_STOP, choice: int = 0
) -> CompleteResponse:
    return CompleteResponse(
        choice_finished=ChoiceFinished(choice_index=choice, finish_reason=reason)
    )


def reset(hop: int = 0) -> CompleteResponse:
    return CompleteResponse(stream_reset=StreamReset(hop=hop))


def completed(completion: Completion | None = None) -> CompleteResponse:
    return CompleteResponse(
        completed=StreamCompleted(completion=completion or Completion(id="cmpl_1"))
    )


def answer(
    *parts: str | Part,
    finish: "FinishReason.ValueType" = FINISH_REASON_STOP,
    completion_id: str = "cmpl_1",
) -> Completion:
    """A whole completion of one choice."""
    return Completion(
        id=completion_id,
        choices=[Choice(message=said(*parts), finish_reason=finish)],
    )


def said(*parts: str | Part) -> Message:
    return Message(
        role=ROLE_ASSISTANT,
        parts=[Part(text=part) if isinstance(part, str) else part for part in parts],
    )
