"""Recordings of all dialects, and what our decoders read in them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.providers import event_stream
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import Choice
from trunkline.v1.completion_spec_pb2 import CompletionSpec, ReasoningOptions, SamplingOptions
from trunkline.v1.message_pb2 import Message, Part, Role, ToolCall
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.ports import AttemptFacts, Prompt
from trunkline_server.providers.registry import DIALECTS
from trunkline_server.providers.translator import Decoder

RECORDINGS: Final = Path(__file__).parents[1] / "recordings"
# Beginnings of the names of streams that hold no complete answer.
FAILING: Final = ("cut_", "error_", "blocked_")
# Names of bodies that answer a request; all others refuse one.
ANSWERS: Final = frozenset({"hello", "image", "refusal", "tool_call", "two_choices"})
MODELS: Final = {
    "anthropic": "claude-opus-4-8",
    "bedrock": "us.anthropic.claude-opus-4-8",
    "gemini": "gemini-3.8-flash",
}
# How a stream of some type is kept in a file, and what it writes around a piece of JSON.
EXTENSIONS: Final = {
    "text/event-stream": "sse",
    "application/x-ndjson": "ndjson",
    event_stream.TYPE: "eventstream",
}
FRAMES: Final = {"sse": (b"data: ", b"\n\n"), "ndjson": (b"", b"\n")}


@dataclass(frozen=True)
class Recording:
    """One file of a folder that has a dialect's name."""

    dialect: str
    path: Path

    @property
    def name(self) -> str:
        """Without the extension."""
        return self.path.stem

    @property
    def data(self) -> bytes:
        """The body of the response."""
        return self.path.read_bytes()

    @property
    def extension(self) -> str:
        """Of the file, without the dot."""
        return self.path.suffix.removeprefix(".")

    @property
    def content_type(self) -> str:
        """Of the response."""
        types = {extension: kind for kind, extension in EXTENSIONS.items()}
        return types.get(self.extension, "application/json")

    @property
    def is_complete(self) -> bool:
        """Does it hold an answer to its end?"""
        return not self.name.startswith(FAILING)

    @property
    def choices(self) -> int:
        """How many answers were asked for."""
        return 2 if self.name.startswith("two_choices") else 1

    def __str__(self) -> str:
        return f"{self.dialect}/{self.path.name}"


def extension_of(dialect: str) -> str:
    """What recordings of its streams end with; nothing for a type that is not listed above."""
    return EXTENSIONS.get(DIALECTS[dialect].stream_type, "")


def recordings(extension: Callable[[str], str]) -> list[Recording]:
    """All files of all dialects that have a folder. The extension depends on the dialect."""
    return [
        Recording(dialect, path)
        for dialect in sorted(DIALECTS)
        for path in sorted((RECORDINGS / dialect).glob(f"*.{extension(dialect)}"))
    ]


STREAMS: Final = recordings(extension_of)
BODIES: Final = [found for found in recordings(lambda _: "json") if found.name in ANSWERS]


def framed(dialect: str, *payloads: bytes) -> bytes:
    """Pieces of JSON, or of what should be, as a stream of the dialect."""
    if extension_of(dialect) == "eventstream":
        return b"".join(event_stream.of_each_kind(payload) for payload in payloads)
    before, after = FRAMES[extension_of(dialect)]
    return b"".join(before + payload + after for payload in payloads)


@dataclass
class Reading:
    """The events of one response, and the error that ended it, if one did."""

    events: list[CompleteResponse] = field(default_factory=list)
    facts: AttemptFacts = field(default_factory=AttemptFacts)
    error: UpstreamError | None = None

    @property
    def choices(self) -> list[Choice]:
        """What the events add up to: a final value stands for the deltas of its part."""
        ends: dict[int, Choice] = {}
        parts: dict[int, dict[int, Part]] = {}
        for event in self.events:
            kind = event.WhichOneof("event")
            if kind == "choice_finished":
                end = event.choice_finished
                ends[end.choice_index] = Choice(
                    index=end.choice_index,
                    finish_reason=end.finish_reason,
                    native_finish_reason=end.native_finish_reason,
                    stop_sequence=end.stop_sequence,
                )
            elif kind not in (None, "artifact"):
                said = getattr(event, kind)
                own = parts.setdefault(said.choice_index, {})
                _add(own.setdefault(said.part_index, Part()), kind, said)
        for index, own in parts.items():
            message = ends.setdefault(index, Choice(index=index)).message
            message.parts.extend(own[number] for number in sorted(own))
        return [ends[index] for index in sorted(ends)]

    def said(self, kind: str, choice_index: int = 0) -> str:
        """All deltas of a kind, joined."""
        deltas = [
            getattr(event, kind) for event in self.events if event.WhichOneof("event") == kind
        ]
        return "".join(delta.text for delta in deltas if delta.choice_index == choice_index)


def _add(part: Part, kind: str, said: Any) -> None:
    match kind:
        case "text_delta":
            part.text += said.text
        case "refusal_delta":
            part.refusal += said.text
        case "reasoning_delta":
            part.reasoning.text += said.text
        case "tool_call_delta":
            part.tool_call.MergeFrom(ToolCall(id=said.id, name=said.name))
            part.tool_call.arguments_json += said.arguments_json
        case "part_completed" if said.part.WhichOneof("content") is None:
            part.provider_state.CopyFrom(said.part.provider_state)
        case "part_completed":
            part.CopyFrom(said.part)


@cache
def candidate(dialect: str) -> Candidate:
    """A model of a dialect."""
    model = MODELS.get(dialect, "m-1")
    return Candidate(provider=dialect, id=model, model=model, family=dialect)


@cache
def spec(choices: int = 1, *, draws: bool = True) -> CompletionSpec:
    """Asks for reasoning and for images, so that nothing stays hidden."""
    return CompletionSpec(
        messages=[Message(role=Role.ROLE_USER, parts=[Part(text="Hi")])],
        sampling=SamplingOptions(candidate_count=choices),
        reasoning=ReasoningOptions(include=True),
        output_modalities=["text", "image"] if draws else [],
    )


def decoder(dialect: str, facts: AttemptFacts, choices: int = 1, *, draws: bool = True) -> Decoder:
    """A fresh decoder, whose minted ids are call_0, call_1, ..."""
    ids = count()
    translator = DIALECTS[dialect].translator
    prompt = Prompt(spec(choices, draws=draws), stream=True)
    return translator.decoder(candidate(dialect), prompt, facts, lambda: f"call_{next(ids)}")


def read(dialect: str, chunks: Iterable[bytes], choices: int = 1) -> Reading:
    """Reads a stream to its end or its failure. Any other exception than ours passes through."""
    reading = Reading()
    reader = decoder(dialect, reading.facts, choices)
    try:
        for chunk in chunks:
            reading.events += reader.feed(chunk)
        reading.events += reader.finish()
    except UpstreamError as error:
        reading.error = error
    return reading


def read_whole(dialect: str, body: bytes, choices: int = 1) -> Reading:
    """Reads a response that came in one piece."""
    reading = Reading()
    try:
        reading.events += decoder(dialect, reading.facts, choices).whole(body)
    except UpstreamError as error:
        reading.error = error
    return reading


def split(data: bytes, size: int) -> list[bytes]:
    """Reads of one size."""
    return [data[start : start + size] for start in range(0, len(data), size)]
