"""What every dialect's decoder shares: from pieces of an answer to the contract's events.

A decoder says what it read (`text`, `tool_call`, `finish`, ...) and this keeps the books: which part a piece belongs
to, what a tool call's arguments add up to, and how a choice ended. Empty pieces are dropped, and so are words after the
end of their choice.
"""

import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeGuard

import msgspec

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    PartCompleted,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from trunkline.v1.completion_pb2 import CompletionWarning, FinishReason, TokenLogprob, Usage
from trunkline.v1.message_pb2 import Artifact, Part, ProviderState, Reasoning, ToolCall
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import AttemptFacts, Prompt
from trunkline_server.wire.sse import SSEDecoder

MAX_TOKENS: Final = 1_000_000_000  # A count beyond this is a lie, not a count.
MAX_CALLS: Final = 128  # In one answer.
MAX_CHOICES: Final = 16
NOWHERE: Final = -1  # In place of a part's number.
MAX_CONTENT_CHARS: Final = 64 * 1024 * 1024
TOO_LONG: Final = "the answer is too long"
IMAGE: Final = "image"  # Among the modalities of an answer.
MAX_IMAGES: Final = 16  # In one answer.
MAX_IMAGE_BYTES: Final = 25 * 1024 * 1024  # Of all images of an answer.
MAX_IMAGE_URL_CHARS: Final = 8_000
MAX_IMAGE_EVENT_BYTES: Final = 36 * 1024 * 1024  # As much, in base64 and with what is around it.

_IMAGE_TYPE: Final = re.compile(r"image/[a-z0-9.+-]{1,64}\Z")
_DATA_URL: Final = re.compile(r"data:([^,;]{0,128})(?:;[^,;]{0,128})*;base64,", re.IGNORECASE)

# Reasons that stand even when the answer holds tool calls.
_OVERRIDES_CALLS = frozenset(
    {
        FinishReason.FINISH_REASON_LENGTH,
        FinishReason.FINISH_REASON_CONTEXT_LENGTH,
        FinishReason.FINISH_REASON_CONTENT_FILTER,
        FinishReason.FINISH_REASON_REFUSAL,
        FinishReason.FINISH_REASON_PAUSED,
        FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL,
    }
)


class _Call:
    """A tool call that is being written."""

    __slots__ = ("arguments", "id", "index", "name", "part_index", "state")

    def __init__(
        self, part_index: int, index: int, call_id: str, name: str, state: ProviderState | None
    ) -> None:
        self.part_index = part_index
        self.index = index
        self.id = call_id
        self.name = name
        self.arguments: list[str] = []
        self.state = state


class _Choice:
    """One of the answers that were asked for."""

    __slots__ = ("calls", "finished", "kind", "next_index", "part_index")

    def __init__(self) -> None:
        self.kind = ""
        self.part_index = 0
        self.next_index = 0
        self.calls: dict[object, _Call] = {}
        self.finished = False


class AnswerEvents:
    """Collects the events of one answer. `take` hands them over, batch by batch.

    Args:
        family: whose opaque state this is; goes into ProviderState.provider.
        shows_reasoning: the caller asked for reasoning; else it only counts as progress.
        choices: how many answers were asked for.
        merges: text that arrives together may be one delta.
        provider: who answers; images say so.
        draws: the caller asked for images; else they are left out.
        may_draw: images may come whether they were asked for or not.
    """

    def __init__(
        self,
        *,
        family: str,
        model: str,
        shows_reasoning: bool,
        choices: int,
        mint_id: Callable[[], str],
        facts: AttemptFacts,
        merges: bool = False,
        provider: str = "",
        draws: bool = False,
        may_draw: bool = False,
    ) -> None:
        self.facts = facts
        self.progressed = False
        self.output_chars = 0
        self._family = family
        self._model = model
        self._shows_reasoning = shows_reasoning
        self.expected = choices
        self._mint_id = mint_id
        self._events: list[CompleteResponse] = []
        self._choices: dict[int, _Choice] = {}
        self._finished = 0
        self.draws = draws
        self._may_draw = draws or may_draw
        self._provider = provider
        self._images = 0
        self._image_bytes = 0
        self._merges = merges
        self._merged: TextDelta | None = None  # The last event, whose text is still in pieces.
        self._pieces: list[str] = []
        self._merged_choice = 0
        self._merged_at = 0  # So many events there are for as long as it is the last one.

    @classmethod
    def of(
        cls,
        candidate: Candidate,
        prompt: Prompt,
        facts: AttemptFacts,
        mint_id: Callable[[], str],
        choices: int = 1,
    ) -> "AnswerEvents":
        """Those of one attempt."""
        spec = prompt.spec
        return cls(
            family=candidate.family,
            model=candidate.model,
            shows_reasoning=spec.HasField("reasoning") and spec.reasoning.include,
            choices=choices,
            mint_id=mint_id,
            facts=facts,
            merges=prompt.merges,
            provider=candidate.provider,
            draws=IMAGE in spec.output_modalities,
            may_draw=Capability.IMAGE_OUTPUT in candidate.capabilities,
        )

    def sse_decoder(self) -> SSEDecoder:
        """For the stream that these events come from: an image comes in one piece, as a line, asked for or not."""
        if not self._may_draw:
            return SSEDecoder()
        return SSEDecoder(
            max_line_bytes=MAX_IMAGE_EVENT_BYTES, max_event_bytes=MAX_IMAGE_EVENT_BYTES
        )

    def is_unasked(self, choice_index: int) -> bool:
        """Is it a choice beyond those that were asked for? One that can't be at all is an error elsewhere."""
        return self.expected <= choice_index < MAX_CHOICES

    @property
    def is_finished(self) -> bool:
        """Has every choice ended?"""
        return self._finished >= self.expected

    @property
    def has_calls(self) -> bool:
        """Did any choice call a tool?"""
        return any(choice.calls for choice in self._choices.values())

    def take(self) -> list[CompleteResponse]:
        """The events since the last call."""
        events = self._events
        if events:
            if self._merged is not None:
                self._join()
            self._events = []
        return events

    def text(self, choice_index: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        """Visible text."""
        if not text and not logprobs:
            return
        # Once for each token of each answer: written out, without the calls that the other kinds share.
        self.output_chars += len(text)
        if self.output_chars > MAX_CONTENT_CHARS:
            raise UpstreamError(Failure.PROTOCOL, TOO_LONG)
        choice = self._choices.get(choice_index)
        if choice is None or choice.kind != "text":
            part_index = self._part(choice_index, "text")
            if part_index == NOWHERE:
                self.output_chars -= len(text)
                return
        elif (
            self._merged is None
            or logprobs
            or choice_index != self._merged_choice
            or len(self._events) != self._merged_at
        ):
            part_index = choice.part_index
        else:
            self._pieces.append(text)
            return
        # Written in place: one that is made with its fields, and copied into the event, takes three times as long.
        event = CompleteResponse()
        delta = event.text_delta
        delta.text = text
        if choice_index:
            delta.choice_index = choice_index
        if part_index:
            delta.part_index = part_index
        if logprobs:
            delta.logprobs.extend(logprobs)
        self._events.append(event)
        if self._merges and not logprobs:
            self._join()
            self._merged = delta
            self._merged_choice, self._merged_at = choice_index, len(self._events)
            self._pieces = [text]

    def reasoning(self, choice_index: int, text: str, *, summary: bool = False) -> None:
        """Thinking aloud: shown only to callers who asked."""
        if not text:
            return
        self._count(len(text))
        self.progressed = True
        if self._shows_reasoning:
            part_index = self._part(choice_index, "reasoning")
            if part_index == NOWHERE:
                return
            self._events.append(
                CompleteResponse(
                    reasoning_delta=ReasoningDelta(
                        choice_index=choice_index, part_index=part_index, text=text, summary=summary
                    )
                )
            )

    def reasoning_done(
        self,
        choice_index: int,
        text: str,
        state: bytes,
        *,
        redacted: bool = False,
        summary: bool = False,
    ) -> None:
        """A block of reasoning is whole, with the state that must go back. Sent even when its text is not shown."""
        shown = self._shows_reasoning and not redacted
        part_index = self._part(choice_index, "reasoning")
        if part_index == NOWHERE:
            return
        part = Part(
            reasoning=Reasoning(
                text=text if shown else "", summary=summary and shown, redacted=not shown
            ),
            provider_state=ProviderState(provider=self._family, model=self._model, data=state),
        )
        self._events.append(
            CompleteResponse(
                part_completed=PartCompleted(
                    choice_index=choice_index, part_index=part_index, part=part
                )
            )
        )
        self.break_part(choice_index)

    def text_state(self, choice_index: int, state: bytes) -> None:
        """State that belongs to the text part that is open."""
        part_index = self._part(choice_index, "text")
        if part_index == NOWHERE:
            return
        self._events.append(
            CompleteResponse(
                part_completed=PartCompleted(
                    choice_index=choice_index,
                    part_index=part_index,
                    part=Part(provider_state=self._state(state)),
                )
            )
        )

    def refusal(self, choice_index: int, text: str) -> None:
        """The model says why it will not answer."""
        if not text:
            return
        part_index = self._part(choice_index, "refusal")
        if part_index == NOWHERE:
            return
        self._count(len(text))
        self._events.append(
            CompleteResponse(
                refusal_delta=RefusalDelta(
                    choice_index=choice_index, part_index=part_index, text=text
                )
            )
        )

    def image(self, mime_type: str, data: str) -> None:
        """The model has drawn something. `data` is base64."""
        if not self.draws:
            return
        if not _IMAGE_TYPE.match(mime_type.lower()):
            raise UpstreamError(Failure.PROTOCOL, "an image of another type")
        try:
            drawn = binascii.a2b_base64(data, strict_mode=True)
        except ValueError as error:
            raise UpstreamError(Failure.PROTOCOL, "an image that is not base64") from error
        self._image_bytes += len(drawn)
        if not drawn or self._image_bytes > MAX_IMAGE_BYTES:
            raise UpstreamError(Failure.PROTOCOL, "an image that is empty, or too large")
        self._add_image(Artifact(mime_type=mime_type.lower(), data=drawn, size_bytes=len(drawn)))

    def image_url(self, url: str) -> None:
        """The same, as an address, or as a `data:` URL."""
        if not self.draws:
            return
        if (start := _DATA_URL.match(url)) is not None:
            self.image(start[1], url[start.end() :])
        elif len(url) <= MAX_IMAGE_URL_CHARS and url.startswith(("https://", "http://")):
            self._add_image(Artifact(url=url))
        else:
            raise UpstreamError(Failure.PROTOCOL, "an image at no address")

    def _add_image(self, artifact: Artifact) -> None:
        self._images += 1
        if self._images > MAX_IMAGES:
            raise UpstreamError(Failure.PROTOCOL, "too many images")
        artifact.id = f"art_{self._mint_id().rpartition('_')[2]}"
        artifact.type = IMAGE
        artifact.provider = self._provider
        artifact.model = self._model
        self._events.append(CompleteResponse(artifact=artifact))

    def begin_call(
        self, choice_index: int, key: object, call_id: str, name: str, *, state: bytes | None = None
    ) -> None:
        """A tool call starts. `key` names it in later pieces; `call_id` may be empty."""
        choice = self._choice(choice_index)
        if len(choice.calls) >= MAX_CALLS:
            raise UpstreamError(Failure.PROTOCOL, "too many tool calls")
        taken = {call.id for call in choice.calls.values()}
        if not call_id or call_id == "null" or call_id in taken:
            call_id = self._mint_id()
        choice.kind = "call"
        provider_state = self._state(state) if state else None
        call = _Call(choice.next_index, len(choice.calls), call_id, name, provider_state)
        choice.part_index = choice.next_index
        choice.next_index += 1
        choice.calls[key] = call
        self._events.append(
            CompleteResponse(
                tool_call_delta=ToolCallDelta(
                    choice_index=choice_index,
                    part_index=call.part_index,
                    tool_call_index=call.index,
                    id=call.id,
                    name=name,
                    provider_state=provider_state,
                )
            )
        )

    def call_arguments(self, choice_index: int, key: object, fragment: str) -> None:
        """More of a call's arguments."""
        if not fragment:
            return
        self._count(len(fragment))
        call = self._choice(choice_index).calls[key]
        call.arguments.append(fragment)
        self._events.append(
            CompleteResponse(
                tool_call_delta=ToolCallDelta(
                    choice_index=choice_index,
                    part_index=call.part_index,
                    tool_call_index=call.index,
                    arguments_json=fragment,
                )
            )
        )

    def fragments(self, choice_index: int, key: object) -> Sequence[str]:
        """What has come of a call's arguments, piece by piece."""
        return self._choice(choice_index).calls[key].arguments

    def is_open(self, choice_index: int, kind: str) -> bool:
        """Would more of this kind belong to the part that is being written?"""
        choice = self._choices.get(choice_index)
        return choice is not None and choice.kind == kind

    def break_part(self, choice_index: int) -> None:
        """What comes next is a new part even if it is of the same kind."""
        self._choice(choice_index).kind = ""

    def finish(
        self,
        choice_index: int,
        reason: FinishReason.ValueType,
        native: str,
        stop_sequence: str = "",
    ) -> None:
        """A choice ends. Only the first end counts: some upstreams say it twice."""
        choice = self._choice(choice_index)
        if choice.finished:
            return
        choice.finished = True
        choice.kind = ""  # So that what comes after it is noticed, at no cost to what comes before.
        self._finished += 1
        reason = self._complete_calls(choice_index, choice, reason)
        finished = ChoiceFinished()
        finished.finish_reason = reason
        finished.native_finish_reason = native[:64]
        if choice_index:
            finished.choice_index = choice_index
        if stop_sequence:
            finished.stop_sequence = stop_sequence
        self.facts.finishes.append(finished)
        event = CompleteResponse()
        event.choice_finished.CopyFrom(finished)
        self._events.append(event)

    def usage(self, usage: Usage) -> None:
        """Counts so far: cumulative, so the last ones win."""
        self.facts.usage = usage

    def warn(self, code: str, field: str, message: str) -> None:
        """Tell the caller about something that was not as asked or promised."""
        self.facts.warnings.append(
            CompletionWarning(code=code, field=field, message=message, provider=self._family)
        )

    def _complete_calls(
        self, choice_index: int, choice: _Choice, reason: FinishReason.ValueType
    ) -> FinishReason.ValueType:
        if not choice.calls:
            return reason
        if reason not in _OVERRIDES_CALLS:
            reason = FinishReason.FINISH_REASON_TOOL_CALLS
        for call in choice.calls.values():
            arguments = "".join(call.arguments)
            if not arguments and reason == FinishReason.FINISH_REASON_TOOL_CALLS:
                arguments = (
                    "{}"  # No arguments at all is how some models call a tool that takes none.
                )
                self.call_arguments(choice_index, _key_of(choice, call), arguments)
            elif reason == FinishReason.FINISH_REASON_TOOL_CALLS and (
                fault := arguments_fault(arguments)
            ):
                # Some servers say "tool_calls" even when the limit cut the arguments off.
                reason = fault
                self.warn(
                    "MALFORMED_TOOL_CALL",
                    "tool_call.arguments_json",
                    "the arguments are no JSON object",
                )
            part = Part(tool_call=ToolCall(id=call.id, name=call.name, arguments_json=arguments))
            if call.state is not None:
                part.provider_state.CopyFrom(call.state)
            self._events.append(
                CompleteResponse(
                    part_completed=PartCompleted(
                        choice_index=choice_index, part_index=call.part_index, part=part
                    )
                )
            )
        return reason

    def _join(self) -> None:
        if self._merged is not None and len(self._pieces) > 1:
            self._merged.text = "".join(self._pieces)
        self._merged = None

    def _state(self, data: bytes) -> ProviderState:
        return ProviderState(provider=self._family, model=self._model, data=data)

    def _count(self, chars: int) -> None:
        self.output_chars += chars
        if self.output_chars > MAX_CONTENT_CHARS:
            raise UpstreamError(Failure.PROTOCOL, TOO_LONG)

    def _choice(self, choice_index: int) -> _Choice:
        choice = self._choices.get(choice_index)
        if choice is None:
            if not 0 <= choice_index < MAX_CHOICES:
                raise UpstreamError(Failure.PROTOCOL, "a choice index out of range")
            choice = self._choices[choice_index] = _Choice()
        return choice

    def _part(self, choice_index: int, kind: str) -> int:
        """The number of the part that a piece belongs to; `NOWHERE` after the choice's end, which was told."""
        choice = self._choices.get(choice_index)
        if choice is None:
            choice = self._choice(choice_index)
        if choice.finished:
            return NOWHERE
        if choice.kind != kind:
            choice.kind = kind
            choice.part_index = choice.next_index
            choice.next_index += 1
        return choice.part_index


def _key_of(choice: _Choice, call: _Call) -> object:
    return next(key for key, value in choice.calls.items() if value is call)


def arguments_fault(arguments: str) -> FinishReason.ValueType | None:
    """What is wrong with a finished call's arguments: cut off, not JSON or no object; None when they are fine."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        is_open = arguments.count("{") > arguments.count("}") or not arguments.rstrip().endswith(
            "}"
        )
        return (
            FinishReason.FINISH_REASON_LENGTH
            if is_open
            else FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL
        )
    return None if isinstance(value, dict) else FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL


def raw_arguments(raw: msgspec.Raw) -> str:
    """Arguments that came as a JSON value, as the model wrote them, on one line.

    Raises:
        UpstreamError: they are not JSON.
    """
    text = bytes(raw)
    if text in (b"", b"null"):
        return "{}"
    try:
        # Whole responses are indented for human eyes.
        return (msgspec.json.format(text, indent=-1) if b"\n" in text else text).decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UpstreamError(
            Failure.PROTOCOL, f"malformed arguments: {type(error).__name__}"
        ) from error


def count_of(value: Any) -> int:
    """A token count as an upstream wrote it: absent and absurd ones are 0."""
    return int(value) if is_count(value) else 0


def is_count(value: Any) -> TypeGuard[int | float]:
    """Is it a number that a token count can be?"""
    # By its very type: to Python, true is a number.
    return type(value) in _NUMBERS and 0 <= value <= MAX_TOKENS


_NUMBERS: Final = frozenset({int, float})


class AnswerDecoder:
    """What every dialect's decoder says of itself in the same way.

    Attributes:
        is_done: the dialect's last event has come. Never in a dialect that has none.
    """

    def __init__(self, events: AnswerEvents) -> None:
        self._events = events
        self.is_done = False

    @property
    def progressed(self) -> bool:
        """Content came since this was last cleared, shown or not."""
        return self._events.progressed

    @progressed.setter
    def progressed(self, value: bool) -> None:
        self._events.progressed = value

    @property
    def output_chars(self) -> int:
        """Characters of the answer so far, reasoning included."""
        return self._events.output_chars

    @property
    def is_finished(self) -> bool:
        """Every choice has ended, so an end of the stream is no loss."""
        return self._events.is_finished

    @property
    def has_told_end(self) -> bool:
        """The caller knows that every choice has ended, so nothing of the answer can be missing."""
        return self._events.is_finished

    @property
    def survives_loss(self) -> bool:
        """Every choice has said that it ended, and that is believed of who says no more."""
        return self.is_finished
