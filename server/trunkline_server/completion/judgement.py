"""Is an answer good enough? What it came to is read here; what to do about it is the panel's."""

import json
from collections.abc import Sequence
from typing import Final

from trunkline.v1.completion_event_pb2 import ChoiceFinished
from trunkline.v1.completion_pb2 import FinishReason
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.completion.attempts import Batch
from trunkline_server.core.agreement import may_refuse, refuses
from trunkline_server.core.panels import Trigger
from trunkline_server.core.schema_looks import UncheckableSchema
from trunkline_server.core.tool_calls import arguments_of

HELD_CHARS: Final = 8_192  # Of a stream, reasoning included: a longer one is passed on unjudged.
UNCERTAIN_LOGPROB: Final = -1.0  # Mean of the tokens', below which an answer is a guess.
MIN_LOGPROBS: Final = 5
ENOUGH_LOGPROBS: Final = 20  # Of a stream's beginning.

_REFUSALS: Final = frozenset(
    {FinishReason.FINISH_REASON_REFUSAL, FinishReason.FINISH_REASON_CONTENT_FILTER}
)
_LENGTH: Final = FinishReason.FINISH_REASON_LENGTH


class Judgement:
    """Of one answer, while it comes.

    Args:
        triggers: what counts against it.
        whole: it is judged in the end; otherwise as soon as there is enough of it to be shown.
    """

    def __init__(self, spec: CompletionSpec, triggers: frozenset[Trigger], *, whole: bool) -> None:
        self._spec = spec
        self._triggers = triggers
        kind = spec.response_format.WhichOneof("format") if spec.HasField("response_format") else ""
        self._is_formed = (
            kind in ("json_object", "json_schema") and Trigger.INVALID_OUTPUT in triggers
        )
        self._whole = whole
        self._pieces: list[str] = []
        self._chars = 0
        self._is_refusal = False
        self._has_calls = False
        self._has_acted = False  # Which no reset undoes.
        self._logprobs: list[float] = []
        self.held: list[Batch] = []

    def add(self, batch: Batch) -> None:
        """What has come."""
        for event in batch:
            kind = event.WhichOneof("event")
            if kind == "text_delta":
                self._pieces.append(event.text_delta.text)
                self._chars += len(event.text_delta.text)
                self._logprobs += [token.logprob for token in event.text_delta.logprobs]
            elif kind == "stream_reset":
                self.void()
            elif kind == "reasoning_delta":
                self._chars += len(event.reasoning_delta.text)
            elif kind == "refusal_delta":
                self._is_refusal = True
            elif kind == "tool_call_delta":
                self._has_calls = True
            elif kind in ("server_tool_call", "artifact"):
                self._has_acted = True

    def void(self) -> None:
        """What has come so far is not the answer. What was done stays done."""
        self._pieces.clear()
        self._logprobs.clear()
        self._chars = 0
        self._is_refusal = self._has_calls = False
        self.held.clear()

    def hold(self, batch: Batch) -> None:
        """Keep it back. What a reset voids was never shown, so nothing is told of it."""
        is_reset = bool(batch) and batch[0].HasField("stream_reset")
        self.held.append(batch[1:] if is_reset else batch)

    @property
    def is_made(self) -> bool:
        """Is there so much of it that nothing is held back any longer?"""
        if self._whole:
            return False
        if self._has_calls or self._has_acted or self._chars >= HELD_CHARS:
            return True
        is_sure = not self._logprobs or len(self._logprobs) >= ENOUGH_LOGPROBS
        return not self._is_formed and is_sure and not may_refuse("".join(self._pieces))

    def doubt(self, finishes: Sequence[ChoiceFinished] | None) -> Trigger | None:
        """What speaks against the answer. `finishes`: how it ended; None: it goes on."""
        found = self._doubt(finishes)
        return found if found in self._triggers else None

    def _doubt(self, finishes: Sequence[ChoiceFinished] | None) -> Trigger | None:
        text = "".join(self._pieces)
        reasons = {finished.finish_reason for finished in finishes or ()}
        if self._has_calls or self._has_acted:
            return None
        if self._is_refusal or reasons & _REFUSALS or refuses(text):
            return Trigger.REFUSAL
        if len(self._logprobs) >= MIN_LOGPROBS:
            mean = sum(self._logprobs) / len(self._logprobs)
            if mean < UNCERTAIN_LOGPROB:
                return Trigger.UNCERTAIN
        if finishes is None:
            return None
        if not text.strip():
            return Trigger.EMPTY
        if _LENGTH in reasons and not self._spec.sampling.HasField("max_output_tokens"):
            # A caller who asks for few tokens gets them cut.
            return Trigger.CUT
        if self._is_formed and not fits(self._spec, text):
            return Trigger.INVALID_OUTPUT
        return None


def fits(spec: CompletionSpec, text: str) -> bool:
    """Is the text the JSON that was asked for? A schema that can't be checked is taken as satisfied."""
    form = spec.response_format
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if form.WhichOneof("format") == "json_object":
        return isinstance(value, dict)
    if not isinstance(value, dict):
        return True  # Which a schema may well ask for.
    try:
        return arguments_of(form.json_schema.schema_json).parse(text)[0] is not None
    except (UncheckableSchema, ValueError):
        return True
