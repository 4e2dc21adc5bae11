"""What a provider dialect is: a translation both ways, without I/O."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_pb2 import CompletionWarning
from trunkline.v1.completion_spec_pb2 import CompletionSpec, ToolChoiceMode, ToolOptions
from trunkline.v1.message_pb2 import Media, Message, Part, Role
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.ports import AttemptFacts, Prompt

SYSTEM_ROLES: Final = frozenset({"system", "developer"})
MAX_ERROR_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request: the path below the provider's base address, headers beside the provider's own, and the body."""

    path: str
    body: bytes
    headers: Sequence[tuple[str, str]] = ()
    warnings: Sequence[CompletionWarning] = ()


@dataclass(slots=True)
class Warnings:
    """What a candidate can't honour. Collected while a request is written."""

    provider: str
    found: list[CompletionWarning] = field(default_factory=list)

    def dropped(self, field: str, why: str = "the provider has no such option") -> None:
        """An option is left out."""
        self.add("PARAMETER_DROPPED", field, why)

    def clamped(self, field: str, why: str) -> None:
        """A value is changed to the nearest one that exists."""
        self.add("VALUE_CLAMPED", field, why)

    def state_dropped(self) -> None:
        """Opaque state of another family is left out."""
        if not any(warning.code == "STATE_DROPPED" for warning in self.found):
            self.add("STATE_DROPPED", "spec.messages", "state of another provider is not sent")

    def once(self, field: str, why: str) -> None:
        """An option is left out, perhaps in many places: said once."""
        if not any(warning.field == field for warning in self.found):
            self.dropped(field, why)

    def add(self, code: str, field: str, message: str) -> None:
        """Any other remark."""
        self.found.append(
            CompletionWarning(code=code, field=field, message=message, provider=self.provider)
        )


class Decoder(Protocol):
    """One response's bytes to events. A failure may arrive inside a 200 stream."""

    progressed: bool  # Reasoning came since this was last cleared, shown or not. Events are progress by themselves.

    @property
    def output_chars(self) -> int:
        """Characters of content so far, shown or not."""
        ...

    @property
    def is_done(self) -> bool:
        """The dialect's last event has come: nothing after it matters."""
        ...

    @property
    def is_finished(self) -> bool:
        """Every choice has said that it ended, so an end of the stream is no loss."""
        ...

    @property
    def has_told_end(self) -> bool:
        """Nothing of the answer can be missing: every choice has ended, and was not only said to, perhaps too early."""
        ...

    @property
    def survives_loss(self) -> bool:
        """If the connection is lost now, the answer counts as whole."""
        ...

    def feed(self, chunk: bytes) -> list[CompleteResponse]:
        """Raises: UpstreamError."""
        ...

    def finish(self) -> list[CompleteResponse]:
        """The stream has ended. Raises: UpstreamError when the answer is not complete."""
        ...

    def whole(self, body: bytes) -> list[CompleteResponse]:
        """The events of an answer that came in one piece. Raises: UpstreamError."""
        ...


class Translator(Protocol):
    """One dialect. Frozen: one instance serves all requests of a provider."""

    @property
    def name(self) -> str:
        """The dialect's name in the configuration."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the dialect can express; a model of it has these unless its entry says otherwise."""
        ...

    def encode(self, candidate: Candidate, prompt: Prompt) -> UpstreamRequest:
        """Raises: Unencodable."""
        ...

    def decoder(
        self, candidate: Candidate, prompt: Prompt, facts: AttemptFacts, mint_id: Callable[[], str]
    ) -> Decoder:
        """For one response."""
        ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """What a response with a bad status means. Never raises."""
        ...


def data_url(media: Media) -> str:
    """Media as a `data:` URL."""
    return f"data:{media.mime_type};base64,{base64_of(media)}"


def extension_of(address: str) -> str:
    """What the name of a file ends with, by its address or as it is, in small letters; empty where there is none."""
    try:
        path = urlsplit(address).path
    except ValueError:  # A bracket in the place of a host, which never closes.
        return ""
    return path.rpartition(".")[2].lower()


def base64_of(media: Media) -> str:
    """The bytes of media as base64."""
    return base64.b64encode(media.data).decode("ascii")


def text_of(parts: Iterable[Part]) -> str:
    """The text parts, joined without anything between them."""
    return "".join(part.text for part in parts if part.WhichOneof("content") == "text")


def system_text(message: Message, warnings: Warnings) -> str:
    """The text of a message of the system's or the developer's; no dialect has a place there for anything else."""
    for part in message.parts:
        kind = part.WhichOneof("content")
        if kind != "text" and kind is not None:
            warnings.once(f"spec.messages[].parts[].{kind}", "only text goes into a system message")
    return text_of(message.parts)


def beside_results(message: Message, warnings: Warnings) -> Message:
    """What a tool's message says beside its results, as a turn of the user's: without the tool's name, and maybe empty.

    What only the model says has no place in such a turn, and is left out with a warning.
    """
    parts = []
    for part in message.parts:
        kind = part.WhichOneof("content")
        if kind in ("reasoning", "refusal"):
            warnings.once(f"spec.messages[].parts[].{kind}", "it does not go beside results")
        elif kind not in ("tool_result", None):
            parts.append(part)
    return Message(role=Role.ROLE_USER, parts=parts)


def without_idle_turns(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages without those turns of the user's that say nothing and stand next to another of his.

    Some services refuse an empty turn, and next to another it says nothing to the others. Elsewhere it keeps the turns
    alternating, and an answer before it from being gone on with.
    """
    if not any(map(_is_idle, messages)):
        return list(messages)
    written: list[dict[str, Any]] = []
    roles = [message["role"] for message in messages if message["role"] not in SYSTEM_ROLES]
    last = ""
    following = iter([*roles[1:], ""])
    for message in messages:
        role = message["role"]
        if role not in SYSTEM_ROLES:
            neighbours = (last, next(following))
            if _is_idle(message) and "user" in neighbours:
                continue
            last = role
        written.append(message)
    return written


def _is_idle(message: dict[str, Any]) -> bool:
    return message["role"] == "user" and not message["content"] and not message.get("images")


def system_texts(spec: CompletionSpec, warnings: Warnings) -> list[str]:
    """System prompt first, then system and developer messages, in order."""
    texts = [spec.system_prompt] if spec.system_prompt else []
    texts += [system_text(message, warnings) for message in spec.messages if message.role in (1, 2)]
    return [text for text in texts if text]


def tool_names_by_id(messages: Iterable[Message]) -> dict[str, str]:
    """Names of all tool calls in the history, by call id."""
    return {
        part.tool_call.id: part.tool_call.name
        for message in messages
        for part in message.parts
        if part.WhichOneof("content") == "tool_call"
    }


def offered_tools(options: ToolOptions) -> list[Any]:
    """The tools that may be called, narrowed to the allowed ones. Where one must be called, no list matters."""
    if options.choice.WhichOneof("choice") == "tool_name":
        return list(options.tools)
    allowed = set(options.choice.allowed_tool_names)
    return [tool for tool in options.tools if not allowed or tool.name in allowed]


def choice_mode(options: ToolOptions) -> "ToolChoiceMode.ValueType":
    """The mode of tool choice; UNSPECIFIED where a tool is named or nothing was said."""
    return options.choice.mode if options.choice.WhichOneof("choice") == "mode" else 0  # type: ignore[return-value]


def raw_json(text: str, otherwise: str = "{}") -> msgspec.Raw:
    """JSON text as it stands, to be embedded. Its validity was checked at the door."""
    return msgspec.Raw((text or otherwise).encode())


def json_object(text: str) -> Any:
    """A JSON object of a tool call; one that is not valid goes as a string under `arguments`."""
    try:
        value = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"arguments": text}
    return value if isinstance(value, dict) else {"arguments": value}


def provider_options(
    spec: CompletionSpec, candidate: Candidate, *, openai_dialect: bool
) -> dict[str, Any]:
    """The caller's extra parameters for this provider: `*` first (OpenAI dialect only), then the provider's own."""
    options: dict[str, Any] = {}
    if spec.provider_options_json:
        keys = ("*", candidate.provider) if openai_dialect else (candidate.provider,)
        for key in keys:
            if text := spec.provider_options_json.get(key, ""):
                options.update(msgspec.json.decode(text))
    return options
