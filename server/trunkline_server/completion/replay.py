"""An answer that was given before, given again: the same content as a stream, in as few events as it takes."""

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    PartCompleted,
    ReasoningDelta,
    RefusalDelta,
    RouteSelected,
    SkillsActivated,
    StreamCompleted,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from trunkline.v1.completion_pb2 import Choice, Completion
from trunkline.v1.completion_service_pb2 import StreamOptions
from trunkline.v1.message_pb2 import Part
from trunkline_server.completion.attempts import Batch


def replayed(completion: Completion, options: StreamOptions) -> Batch:
    """All events of it, in order."""
    started = StreamStarted(
        completion_id=completion.id,
        request_id=completion.request_id,
        conversation_id=completion.conversation_id,
    )
    started.create_time.CopyFrom(completion.create_time)
    events = [
        CompleteResponse(started=started),
        CompleteResponse(route_selected=RouteSelected(route=completion.route)),
    ]
    if completion.skills:
        events.append(CompleteResponse(skills_activated=SkillsActivated(skills=completion.skills)))
    if completion.HasField("genui"):
        events.append(CompleteResponse(genui_meta=completion.genui))
    for choice in completion.choices:
        calls = 0
        for index, part in enumerate(choice.message.parts):
            events += _part(choice, index, calls, part, options)
            calls += part.HasField("tool_call")
    events += [CompleteResponse(artifact=artifact) for artifact in completion.artifacts]
    events += [CompleteResponse(choice_finished=_finish(choice)) for choice in completion.choices]
    last = CompleteResponse(completed=StreamCompleted(completion=completion))
    if not options.include_final_messages:
        forget_messages(last.completed.completion)
    if options.include_usage_updates:
        events.append(CompleteResponse(usage_update=UsageUpdate(usage=completion.usage)))
    return [*events, last]


def forget_messages(completion: Completion) -> None:
    """What the events before it have said is not said again."""
    completion.ClearField("artifacts")
    for choice in completion.choices:
        choice.ClearField("message")
        choice.ClearField("logprobs")


def _finish(choice: Choice) -> ChoiceFinished:
    return ChoiceFinished(
        choice_index=choice.index,
        finish_reason=choice.finish_reason,
        native_finish_reason=choice.native_finish_reason,
        stop_sequence=choice.stop_sequence,
    )


def _part(
    choice: Choice, index: int, calls: int, part: Part, options: StreamOptions
) -> list[CompleteResponse]:
    events: list[CompleteResponse] = []
    kind = part.WhichOneof("content")
    if kind == "text":
        delta = TextDelta(
            choice_index=choice.index,
            part_index=index,
            text=part.text,
            logprobs=choice.logprobs if index == 0 else (),
        )
        events.append(CompleteResponse(text_delta=delta))
    elif kind == "reasoning":
        reasoning = ReasoningDelta(
            choice_index=choice.index,
            part_index=index,
            text=part.reasoning.text,
            summary=part.reasoning.summary,
        )
        events.append(CompleteResponse(reasoning_delta=reasoning))
    elif kind == "refusal":
        events.append(
            CompleteResponse(
                refusal_delta=RefusalDelta(
                    choice_index=choice.index, part_index=index, text=part.refusal
                )
            )
        )
    elif kind == "tool_call" and not options.buffer_tool_arguments:
        call = part.tool_call
        begun = ToolCallDelta(
            choice_index=choice.index,
            part_index=index,
            tool_call_index=calls,
            id=call.id,
            name=call.name,
            arguments_json=call.arguments_json,
        )
        if part.HasField("provider_state"):
            begun.provider_state.CopyFrom(part.provider_state)
        events.append(CompleteResponse(tool_call_delta=begun))
    if kind in (None, "tool_call") or part.HasField("provider_state"):
        events.append(
            CompleteResponse(
                part_completed=PartCompleted(choice_index=choice.index, part_index=index, part=part)
            )
        )
    return events
