"""What becomes of an answer that broke off after content was sent.

Under RESTART all of it comes again, from another candidate. Under CONTINUE the next candidate is shown what was said
and goes on from there: as the beginning of its own turn where its dialect has that, by an instruction where it has not.
That is done for plain text alone. A tool call, or reasoning that is shown, can't be taken up by another model, and
structured output, log-probabilities or several choices would not survive the seam.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from trunkline.v1.completion_event_pb2 import CompleteResponse, TextDelta
from trunkline.v1.completion_pb2 import CompletionWarning
from trunkline.v1.completion_spec_pb2 import CompletionSpec, ReasoningEffort
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.ports import Prompt
from trunkline_server.core.seam import Seam, shown
from trunkline_server.core.usage import CHARS_PER_TOKEN

MAX_SAID_CHARS: Final = 1_000_000  # More than any model writes in one turn.
INSTRUCTION: Final = (
    "Your last message was cut off. Go on from exactly where it ends, without repeating any of it and without a remark "
    "about this. If it ends in the middle of a word, begin with the rest of that word; if a space or a new line comes "
    "next, begin with that."
)
_WITHOUT_THINKING: Final = frozenset(
    {
        ReasoningEffort.REASONING_EFFORT_UNSPECIFIED,
        ReasoningEffort.REASONING_EFFORT_NONE,
    }
)
_NO_CONTENT: Final = frozenset({"usage_update"})
_IN_PARTS: Final = frozenset(
    {"text_delta", "reasoning_delta", "refusal_delta", "tool_call_delta", "part_completed"}
)


def may_continue(spec: CompletionSpec) -> bool:
    """Is plain text all that the caller asked for? Tools may be offered: only a call that has begun ends it."""
    if spec.HasField("response_format") and spec.response_format.WhichOneof("format") in (
        "json_object",
        "json_schema",
    ):
        return False
    if spec.HasField("reasoning") and spec.reasoning.include:
        return False
    sampling = spec.sampling
    return sampling.candidate_count <= 1 and not sampling.logprobs


def is_state(part: Part) -> bool:
    """Is it only what goes back to the provider, such as the signature of hidden reasoning? Nobody is shown that."""
    kind = part.WhichOneof("content")
    return kind is None or (kind == "reasoning" and not part.reasoning.text)


def prefills(candidate: Candidate, spec: CompletionSpec) -> bool:
    """Does it go on with its own turn? Nobody does who is to think first."""
    effort = spec.reasoning.effort
    thinks = spec.reasoning.HasField("budget_tokens") or effort not in _WITHOUT_THINKING
    return candidate.prefills and not thinks


class Said:
    """The text that the caller has so far, and whether another candidate can take it up."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._chars = 0
        self._part_index = 0
        self.is_plain = True
        self.seam: Seam | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._pieces)

    def pass_on(self, batch: Sequence[CompleteResponse]) -> list[CompleteResponse]:
        """The batch as the caller gets it: without what the seam drops."""
        kept: list[CompleteResponse] = []
        for event in batch:
            kind = event.WhichOneof("event")
            if kind == "text_delta" and self.is_plain:
                delta = event.text_delta
                if self.seam is None:
                    self._part_index = delta.part_index
                    self._add(delta.text)
                elif text := self.seam.feed(delta.text):
                    event = self._delta(text)
                else:
                    continue
            elif kind == "part_completed" and is_state(event.part_completed.part):
                # That of a continuation belongs to a turn that its provider has not written alone.
                if self.seam is not None:
                    continue
            elif kind not in _NO_CONTENT:
                # A call, a refusal, or the end: nobody can take the answer up any more.
                self.is_plain = False
                if self.seam is not None:
                    if text := self.seam.finish():
                        kept.append(self._delta(text))
                    self._shift(event, kind)
            kept.append(event)
        return kept

    def _shift(self, event: CompleteResponse, kind: str | None) -> None:
        """Parts are counted anew in each answer: what follows the part that was cut off comes after it."""
        content = getattr(event, kind) if kind in _IN_PARTS else None
        if content is not None:
            content.part_index += self._part_index + 1

    def _delta(self, text: str) -> CompleteResponse:
        """More of the part that was cut off, whatever number it has in the new answer."""
        self._add(text)
        return CompleteResponse(text_delta=TextDelta(part_index=self._part_index, text=text))

    def _add(self, text: str) -> None:
        self._pieces.append(text)
        self._chars += len(text)
        if self._chars > MAX_SAID_CHARS:
            self.is_plain = False

    def join(self, candidate: Candidate, spec: CompletionSpec) -> None:
        """The next text comes from this candidate, who was shown what was said."""
        self.seam = Seam(self.text, is_prefilled=prefills(candidate, spec))


def continuation(prompt: Prompt, said: str, candidate: Candidate) -> Prompt:
    """The prompt with the text so far as the beginning of the assistant's turn."""
    spec = CompletionSpec()
    spec.CopyFrom(prompt.spec)
    visible = shown(said)
    if visible:
        spec.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[Part(text=visible)]))
        if not prefills(candidate, spec):
            spec.messages.append(Message(role=Role.ROLE_USER, parts=[Part(text=INSTRUCTION)]))
    if spec.sampling.HasField("max_output_tokens"):
        used_tokens = len(said) // CHARS_PER_TOKEN
        left_tokens = max(1, spec.sampling.max_output_tokens - used_tokens)
        spec.sampling.max_output_tokens = left_tokens
    return replace(prompt, spec=spec)


def continued_warning(candidate: Candidate) -> CompletionWarning:
    """Tells the caller that more than one model wrote the answer."""
    return CompletionWarning(
        code="CONTINUED",
        message="the provider's stream broke off, and another attempt continued the text",
        provider=candidate.provider,
    )
