"""Folds the events of a stream into the choices of a `Completion`."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from trunkline.v1.completion_event_pb2 import ChoiceFinished, CompleteResponse
from trunkline.v1.completion_pb2 import Choice, TokenLogprob
from trunkline.v1.message_pb2 import Artifact, Message, Part, Reasoning, Role, ToolCall

ASSISTANT: Final = Role.ROLE_ASSISTANT


class _Building:
    """A part that is being written: pieces, or the final value."""

    __slots__ = ("final", "kind", "pieces", "state", "summary")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.summary = False
        self.final: Part | None = None
        self.state: Part | None = None

    def part(self) -> Part:
        if self.final is not None:
            part = self.final
            # The state of hidden reasoning is final; the text that was shown stands in the pieces.
            if self.kind == "reasoning" and self.pieces and not part.reasoning.text:
                part.reasoning.text = "".join(self.pieces)
            return part
        text = "".join(self.pieces)
        if self.kind == "text":
            part = Part(text=text)
        elif self.kind == "reasoning":
            part = Part(reasoning=Reasoning(text=text, summary=self.summary))
        elif self.kind == "refusal":
            part = Part(refusal=text)
        else:
            part = Part(tool_call=ToolCall(arguments_json=text))
        if self.state is not None:
            part.provider_state.CopyFrom(self.state.provider_state)
        return part


def end(choices: Any, finishes: Sequence[ChoiceFinished]) -> None:
    """Add choices without their messages, in order: how they ended is all that most streams have to repeat.

    Args:
        choices: those of a `Completion`.
    """
    if len(finishes) > 1:
        finishes = sorted(finishes, key=lambda finished: finished.choice_index)
    for finished in finishes:
        choice = choices.add()
        choice.finish_reason = finished.finish_reason
        choice.native_finish_reason = finished.native_finish_reason
        if finished.choice_index:
            choice.index = finished.choice_index
        if finished.stop_sequence:
            choice.stop_sequence = finished.stop_sequence


class Fold:
    """Messages of the choices, and what was made beside them.

    Attributes:
        artifacts: of all hops, in order.
    """

    def __init__(self) -> None:
        self.artifacts: list[Artifact] = []
        self._earlier_artifacts = 0  # Of hops before this one.
        self._parts: dict[int, dict[int, _Building]] = {}
        self._logprobs: dict[int, list[TokenLogprob]] = {}

    def add(self, events: Iterable[CompleteResponse]) -> None:
        """The next events, in order."""
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "stream_reset":
                del self.artifacts[self._earlier_artifacts :]
                self.clear()
            elif kind == "artifact":
                self.artifacts.append(event.artifact)
            else:
                self._content(kind, event)

    def fill(self, choices: Iterable[Choice]) -> None:
        """Write the messages, and the log-probabilities, into choices that have ended."""
        for choice in choices:
            index = choice.index
            self._write(choice.message, index)
            if index in self._logprobs:
                choice.logprobs.extend(self._logprobs[index])

    def message(self, choice_index: int) -> Message:
        """What the assistant has said in one choice."""
        message = Message()
        self._write(message, choice_index)
        return message

    def _write(self, message: Message, choice_index: int) -> None:
        message.role = ASSISTANT
        parts = self._parts.get(choice_index, {})
        for index in sorted(parts):
            building = parts[index]
            if building.kind == "text" and building.final is None and building.state is None:
                message.parts.add().text = "".join(building.pieces)
            else:
                message.parts.append(building.part())

    def clear(self) -> None:
        """Begin anew, for the next hop: what was made before it stays."""
        self._earlier_artifacts = len(self.artifacts)
        self._parts.clear()
        self._logprobs.clear()

    def _content(self, kind: str | None, event: CompleteResponse) -> None:
        if kind == "text_delta":
            delta = event.text_delta
            self._building(delta.choice_index, delta.part_index, "text").pieces.append(delta.text)
            if delta.logprobs:
                self._logprobs.setdefault(delta.choice_index, []).extend(delta.logprobs)
        elif kind == "reasoning_delta":
            reasoning = event.reasoning_delta
            building = self._building(reasoning.choice_index, reasoning.part_index, "reasoning")
            building.pieces.append(reasoning.text)
            building.summary = reasoning.summary
        elif kind == "refusal_delta":
            refusal = event.refusal_delta
            self._building(refusal.choice_index, refusal.part_index, "refusal").pieces.append(
                refusal.text
            )
        elif kind == "part_completed":
            completed = event.part_completed
            content = completed.part.WhichOneof("content")
            building = self._building(
                completed.choice_index, completed.part_index, content or "text"
            )
            if content is None:
                building.state = completed.part
            else:
                building.final = completed.part

    def _building(self, choice_index: int, part_index: int, kind: str) -> _Building:
        parts = self._parts.setdefault(choice_index, {})
        building = parts.get(part_index)
        if building is None:
            building = parts[part_index] = _Building(kind)
        return building
