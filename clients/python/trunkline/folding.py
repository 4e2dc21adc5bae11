"""Folding the events of one stream into the Completion that a unary call would have returned.

The last event of a stream need not repeat what the events before it said, so the messages are put
together here: deltas by choice and part, a completed part in place of its deltas, the content of a
hop forgotten when it is reset. What the last event does say wins, field by field. No I/O: events
in, one message out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message as ProtobufMessage

from trunkline.v1.completion_event_pb2 import ChoiceFinished, CompleteResponse
from trunkline.v1.completion_pb2 import (
    Attempt,
    Choice,
    Completion,
    ServerToolCall,
    TokenLogprob,
)
from trunkline.v1.message_pb2 import ROLE_ASSISTANT, Artifact, Message, Part

_AnyMessage = TypeVar("_AnyMessage", bound=ProtobufMessage)


def fold(events: Iterable[CompleteResponse]) -> Completion:
    """The completion that these events tell, complete or not."""
    folder = CompletionFolder()
    for event in events:
        folder.feed(event)
    return folder.completion()


class CompletionFolder:
    """Takes the events of one stream in order; those of a newer contract are let through."""

    def __init__(self) -> None:
        self._report = Completion()
        self._choices: dict[int, _ChoiceFold] = {}
        self._artifacts: list[tuple[int, Artifact]] = []
        self._final: Completion | None = None
        self._hop = 0

    @property
    def is_completed(self) -> bool:
        """Has the event come that ends every whole answer?"""
        return self._final is not None

    @property
    def hop(self) -> int:
        """The model turn, from 0, that content belongs to now."""
        return self._hop

    def feed(self, event: CompleteResponse) -> None:
        """Takes the next event."""
        match event.WhichOneof("event"):
            case "text_delta":
                text = event.text_delta
                part = self._part(text.choice_index, text.part_index, "text")
                part.fragments.append(text.text)
                part.logprobs.extend(text.logprobs)
            case "reasoning_delta":
                reasoning = event.reasoning_delta
                part = self._part(reasoning.choice_index, reasoning.part_index, "reasoning")
                part.fragments.append(reasoning.text)
                part.known.reasoning.summary = reasoning.summary
            case "refusal_delta":
                refusal = event.refusal_delta
                part = self._part(refusal.choice_index, refusal.part_index, "refusal")
                part.fragments.append(refusal.text)
            case "tool_call_delta":
                call = event.tool_call_delta
                part = self._part(call.choice_index, call.part_index, "tool_call")
                part.fragments.append(call.arguments_json)
                # Id and name are on the first delta only.
                part.known.tool_call.id = call.id or part.known.tool_call.id
                part.known.tool_call.name = call.name or part.known.tool_call.name
            case "part_completed":
                self._complete_part(event)
            case "choice_finished":
                choice = self._choice(event.choice_finished.choice_index)
                choice.finished = (self._hop, event.choice_finished)
            case "route_selected":
                self._hop = event.route_selected.route.hop
                self._report.route.CopyFrom(event.route_selected.route)
            case "stream_reset":
                self._forget(event.stream_reset.hop)
                self._add_attempt(event.stream_reset.failed_attempt)
            case "artifact":
                self._artifacts.append((self._hop, event.artifact))
            case "completed":
                self._final = event.completed.completion
            case _:
                self._note(event)

    def completion(self) -> Completion:
        """The answer as far as it is known: whole once `is_completed`."""
        folded = Completion()
        folded.CopyFrom(self._report)
        folded.artifacts.extend(artifact for _, artifact in self._artifacts)
        choices = {index: choice.value(index) for index, choice in self._choices.items()}
        if self._final is not None:
            for final in self._final.choices:
                choices[final.index] = _final_choice(choices.get(final.index), final)
            _overlay(folded, self._final)
        folded.ClearField("choices")
        folded.choices.extend(choices[index] for index in sorted(choices))
        return folded

    def _note(self, event: CompleteResponse) -> None:
        """Takes an event that reports about the answer and holds no part of it."""
        report = self._report
        match event.WhichOneof("event"):
            case "started":
                report.id = event.started.completion_id
                report.request_id = event.started.request_id
                report.conversation_id = event.started.conversation_id
                if event.started.HasField("create_time"):
                    report.create_time.CopyFrom(event.started.create_time)
            case "attempt_failed":
                self._add_attempt(event.attempt_failed.attempt)
            case "skills_activated":
                report.skills.extend(event.skills_activated.skills)
            case "genui_meta":
                report.genui.CopyFrom(event.genui_meta)
            case "server_tool_call":
                self._note_server_tool_call(event.server_tool_call)
            case "usage_update":  # Cumulative, so the last one wins.
                report.usage.CopyFrom(event.usage_update.usage)
            case "interrupted":
                if event.interrupted.HasField("route"):
                    report.route.CopyFrom(event.interrupted.route)
                if event.interrupted.HasField("usage"):
                    report.usage.CopyFrom(event.interrupted.usage)
                for attempt in event.interrupted.attempts:
                    self._add_attempt(attempt)

    def _choice(self, index: int) -> "_ChoiceFold":
        return self._choices.setdefault(index, _ChoiceFold())

    def _part(self, choice_index: int, part_index: int, kind: str) -> "_PartFold":
        parts = self._choice(choice_index).parts
        part = parts.get((part_index, kind))
        if part is None:
            part = parts[part_index, kind] = _PartFold(self._hop)
        return part

    def _complete_part(self, event: CompleteResponse) -> None:
        completed = event.part_completed
        kind: str | None = completed.part.WhichOneof("content")
        if kind is None:
            # Opaque state alone belongs to what the deltas began; if to nothing, to an empty text.
            begun = self._choice(completed.choice_index).parts
            kinds = [kind for index, kind in begun if index == completed.part_index]
            kind = kinds[0] if kinds else "text"
        part = self._part(completed.choice_index, completed.part_index, kind)
        part.known.MergeFrom(completed.part)

    def _forget(self, hop: int) -> None:
        self._hop = hop
        self._artifacts = [made for made in self._artifacts if made[0] != hop]
        for choice in self._choices.values():
            choice.forget(hop)

    def _add_attempt(self, attempt: Attempt) -> None:
        # The same failure may be told twice: when it happened, and by the reset or interruption it
        # led to.
        if attempt.ByteSize() and attempt not in self._report.attempts:
            self._report.attempts.append(attempt)

    def _note_server_tool_call(self, call: ServerToolCall) -> None:
        for known in self._report.server_tool_calls:
            if known.id == call.id:
                _overlay(known, call)
                return
        self._report.server_tool_calls.append(call)


@dataclass(slots=True)
class _PartFold:
    """One part so far: fragments, until its final value is known."""

    hop: int
    known: Part = field(default_factory=Part)
    fragments: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def value(self, kind: str) -> Part:
        part = Part()
        part.CopyFrom(self.known)
        said = "".join(self.fragments)
        # A final value that leaves the text out means the one that was said.
        match kind:
            case "text":
                part.text = part.text or said
            case "refusal":
                part.refusal = part.refusal or said
            case "reasoning":
                part.reasoning.text = part.reasoning.text or said
            case "tool_call":
                part.tool_call.arguments_json = part.tool_call.arguments_json or said
        return part


@dataclass(slots=True)
class _ChoiceFold:
    """One choice so far. Parts are found by index and kind, and `finished` comes with its hop."""

    parts: dict[tuple[int, str], _PartFold] = field(default_factory=dict)
    finished: tuple[int, ChoiceFinished] | None = None

    def forget(self, hop: int) -> None:
        self.parts = {place: part for place, part in self.parts.items() if part.hop != hop}
        if self.finished is not None and self.finished[0] == hop:
            self.finished = None

    def value(self, index: int) -> Choice:
        places = sorted(self.parts)
        finished = self.finished[1] if self.finished else ChoiceFinished()
        return Choice(
            index=index,
            message=Message(
                role=ROLE_ASSISTANT,
                parts=[self.parts[place].value(place[1]) for place in places],
            ),
            finish_reason=finished.finish_reason,
            native_finish_reason=finished.native_finish_reason,
            stop_sequence=finished.stop_sequence,
            logprobs=[logprob for place in places for logprob in self.parts[place].logprobs],
        )


def _final_choice(folded: Choice | None, final: Choice) -> Choice:
    if folded is None:
        return final
    said = Choice()
    said.CopyFrom(final)
    if not final.message.parts:
        said.ClearField("message")
    return _overlay(folded, said)


def _overlay(under: _AnyMessage, over: _AnyMessage) -> _AnyMessage:
    """`under`, with every field that `over` has set replaced by it."""
    for said, _ in over.ListFields():
        under.ClearField(said.name)
    under.MergeFrom(over)
    return under
