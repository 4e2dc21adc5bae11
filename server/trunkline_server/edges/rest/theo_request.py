"""Theo's request bodies to a `CompletionSpec`.

Every field that Theo publishes is read into a type. What its SDK sends beyond that, and nothing here acts on, goes
along in `mode_options_json`. All other fields are refused with their path: a limit that is misspelt would cost more
than a 400.

The endpoint in OpenAI's format is different, because its page says so: what is not on it is passed over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from trunkline.v1.completion_spec_pb2 import CacheMode, CompletionSpec
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.edges.rest.body import invalid, read_body
from trunkline_server.edges.rest.call_state import StateReader
from trunkline_server.edges.rest.http import Refused
from trunkline_server.edges.rest.openai_request import (
    NULL,
    ContentPart,
    StreamOptionsIn,
    bytes_from_base64,
    media_from,
    part_from,
)
from trunkline_server.edges.rest.theo_fields import CONVERSATION, PROMPT, RESULTS
from trunkline_server.edges.status import Refusal

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]

AUTO: Final = "auto"
THEO: Final = "theo"
NEW: Final = "new"
# Of the page of the endpoint in OpenAI's format; everything else is `auto`.
MODES_BY_ENGINE: Final[Mapping[str, str]] = {
    "theo-1-auto": AUTO,
    "theo-1-flash": "fast",
    "theo-1-reason": "think",
    "theo-1-code": "code",
    "theo-1-create": "image",
    "theo-1-motion": "video",
    "theo-1-research": "research",
    "theo-1-roast": "roast",
    "theo-1-genui": "genui",
}


class _In(Struct, forbid_unknown_fields=True):
    """These names, and no others."""


class PersonaIn(_In):
    """`persona` as an object."""

    system_prompt: str


class ToolIn(_In):
    """A tool that the caller runs."""

    name: str
    description: str = ""
    input_schema: Raw = NULL


class ResultIn(_In):
    """What a tool of the caller's brought."""

    tool_call_id: str
    content: str
    is_error: bool = False


class ImageUrlIn(_In, tag_field="type", tag="image_url"):
    """An image at an address."""

    url: str


class ImageDataIn(_In, tag_field="type", tag="image_base64"):
    """An image."""

    data: str
    mime_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"]


class SaidIn(_In):
    """A message of an inline conversation. All but role and content is its writer's own."""

    role: Literal["user", "assistant"]
    content: str
    id: Raw = NULL
    createdAt: Raw = NULL
    mode: Raw = NULL
    artifacts: Raw = NULL


class ConversationIn(_In):
    """A conversation that the caller keeps itself."""

    messages: list[SaidIn]
    id: Raw = NULL
    title: Raw = NULL


class OptionsIn(_In):
    """What goes along as it came."""

    personality_config: Raw = NULL
    response_style: Raw = NULL
    theo_branding: Raw = NULL
    brand_soul: Raw = NULL
    image_model: Raw = NULL
    image_quality: Raw = NULL
    stealth_model: Raw = NULL
    stealth_aspect: Raw = NULL
    stealth_duration: Raw = NULL
    style: Raw = NULL
    aspect_ratio: Raw = NULL
    count: Raw = NULL


class CompletionIn(OptionsIn):
    """The body. A field that is null counts as absent."""

    prompt: str | None = None
    mode: str | None = None
    stream: bool | None = None
    conversation_id: str | None = None
    conversation: ConversationIn | None = None
    skills: list[str] | None = None
    tools: list[ToolIn] | None = None
    tool_results: list[ResultIn] | None = None
    attachments: list[ImageUrlIn | ImageDataIn] | None = None
    persona: str | PersonaIn | None = None
    temperature: float | None = None
    max_iterations: Int32 | None = None
    model_overrides: dict[str, str] | None = None
    format: Literal["theo", "openai"] | None = None
    metadata: Raw = NULL
    component_library: str | None = None


class ChatMessageIn(Struct):
    """A message in OpenAI's format."""

    role: str
    content: str | list[ContentPart] | None = None


class ChatIn(Struct):
    """The body in OpenAI's format. Whatever else it holds is passed over."""

    messages: list[ChatMessageIn]
    model: Any = None
    stream: bool | None = None
    stream_options: StreamOptionsIn | None = None
    temperature: float | None = None
    conversation_id: str | None = None
    skills: list[str] | None = None
    metadata: Raw = NULL


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asked for beside the spec.

    Attributes:
        origins: for each message of the spec, the field that it was made of.
    """

    origins: Sequence[str]
    streams: bool = False
    is_openai: bool = False
    includes_usage: bool = False


_decode_completion = msgspec.json.Decoder(CompletionIn).decode
_decode_chat = msgspec.json.Decoder(ChatIn).decode


def read_completion(body: bytes, spec: CompletionSpec) -> Wanted:
    """Writes a body in the contract's words into an empty `spec`, in place.

    Raises:
        Refused: naming the field in Theo's spelling.
    """
    asked = read_body(_decode_completion, body)
    _keep(asked.conversation_id, spec)
    origins = _conversation(asked, spec)
    origins += _results(asked, spec)
    origins += _prompt(asked, spec)
    spec.mode = asked.mode or AUTO
    _persona(asked.persona, spec)
    spec.skills.extend(asked.skills or ())
    for tool in asked.tools or ():
        written = spec.tool_options.tools.add(name=tool.name, description=tool.description)
        if not is_null(tool.input_schema):
            written.parameters_schema_json = bytes(tool.input_schema).decode()
    if asked.temperature is not None:
        spec.sampling.temperature = asked.temperature
    if asked.max_iterations is not None:
        spec.tool_options.max_hops = asked.max_iterations
    spec.model_overrides.update(asked.model_overrides or {})
    if not is_null(asked.metadata):
        spec.metadata_json = bytes(asked.metadata).decode()
    spec.component_library = asked.component_library or ""
    _options(asked, spec)
    return Wanted(origins, bool(asked.stream), asked.format == "openai")


def is_null(raw: Raw) -> bool:
    """Was the field absent, or null?"""
    return bytes(raw) == b"null"


def _options(asked: OptionsIn, spec: CompletionSpec) -> None:
    options = {
        name: value
        for name in OptionsIn.__struct_fields__
        if not is_null(value := getattr(asked, name))
    }
    if options:
        spec.mode_options_json = msgspec.json.encode(options).decode()


def is_blank(prompt: str | None) -> bool:
    """Does a prompt ask nothing?"""
    return not prompt or not prompt.strip()


def _keep(conversation_id: str | None, spec: CompletionSpec) -> None:
    """A request that stands alone may be answered from the cache: that is what Theo does with every one of them."""
    if conversation_id:
        spec.conversation_id = conversation_id
    else:
        spec.cache.mode = CacheMode.CACHE_MODE_ALLOW


def _conversation(asked: CompletionIn, spec: CompletionSpec) -> list[str]:
    if asked.conversation is None:
        return []
    if asked.conversation_id and asked.conversation_id != NEW:
        raise invalid("goes without conversation_id", CONVERSATION)
    said = asked.conversation.messages
    for message in said:
        role = Role.ROLE_USER if message.role == "user" else Role.ROLE_ASSISTANT
        spec.messages.add(role=role).parts.add().text = message.content
    return [f"{CONVERSATION}.messages[{index}].content" for index in range(len(said))]


def _results(asked: CompletionIn, spec: CompletionSpec) -> list[str]:
    if not asked.tool_results:
        return []
    if not asked.conversation_id or asked.conversation_id == NEW:
        raise invalid("needs the conversation_id of the call", RESULTS)
    message = spec.messages.add(role=Role.ROLE_TOOL)
    states = StateReader()  # What an id carries in OpenAI's format is kept with the conversation.
    for result in asked.tool_results:
        written = message.parts.add().tool_result
        written.tool_call_id = states.read(result.tool_call_id)[0]
        written.parts.add().text = result.content
        written.is_error = result.is_error
    return [RESULTS]


def _prompt(asked: CompletionIn, spec: CompletionSpec) -> list[str]:
    if is_blank(asked.prompt):
        if asked.tool_results and not asked.attachments:
            return []
        raise invalid("must be a non-empty string", PROMPT)
    message = spec.messages.add(role=Role.ROLE_USER)
    message.parts.add().text = asked.prompt or ""
    for index, attachment in enumerate(asked.attachments or ()):
        _attach(attachment, f"attachments[{index}]", message.parts.add())
    return [PROMPT]


def _attach(attachment: ImageUrlIn | ImageDataIn, where: str, written: Part) -> None:
    if isinstance(attachment, ImageUrlIn):
        written.image.CopyFrom(media_from(attachment.url, f"{where}.url"))
    else:
        written.image.data = bytes_from_base64(attachment.data, f"{where}.data")
        written.image.mime_type = attachment.mime_type


def _persona(persona: str | PersonaIn | None, spec: CompletionSpec) -> None:
    if isinstance(persona, PersonaIn):
        spec.system_prompt = persona.system_prompt
    else:
        spec.persona = persona or THEO


def read_chat(body: bytes, spec: CompletionSpec) -> Wanted:
    """The same, of a body in OpenAI's format: the last message of the user is the prompt, and what comes after it is
    passed over. Messages of tools are, too, and with them the calls that they answer.

    Raises:
        Refused: EMPTY_PROMPT where the user says nothing.
    """
    asked = read_body(_decode_chat, body)
    if not asked.messages:
        raise invalid("must contain at least one message", "messages")
    _keep(asked.conversation_id, spec)
    instructions, turns = _turns(asked.messages)
    while turns and turns[-1][1].role != Role.ROLE_USER:
        turns.pop()
    if not turns:
        raise Refused(
            Refusal("EMPTY_PROMPT", "must contain a message of the user", field="messages")
        )
    if asked.conversation_id and asked.conversation_id != NEW:
        turns = turns[-1:]  # What was said before is in the conversation.
    spec.messages.extend(message for _, message in turns)
    if instructions:
        spec.system_prompt = "\n\n".join(instructions)
    else:
        spec.persona = THEO
    model = asked.model if isinstance(asked.model, str) else ""
    spec.mode = MODES_BY_ENGINE.get(model, AUTO)
    if asked.temperature is not None:
        spec.sampling.temperature = asked.temperature
    spec.skills.extend(asked.skills or ())
    if not is_null(asked.metadata):
        spec.metadata_json = bytes(asked.metadata).decode()
    options = asked.stream_options
    return Wanted(
        [f"messages[{index}].content" for index, _ in turns],
        bool(asked.stream),
        is_openai=True,
        includes_usage=bool(options and options.include_usage),
    )


def _turns(messages: Sequence[ChatMessageIn]) -> tuple[list[str], list[tuple[int, Message]]]:
    """Instructions, and what was said: messages with their places, those without content left out."""
    instructions: list[str] = []
    turns: list[tuple[int, Message]] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = _ROLES.get(message.role)
        if role is None:
            raise invalid(f"must be one of {', '.join(_ROLES)}", f"{where}.role")
        if role == Role.ROLE_TOOL:
            continue
        parts = _parts(message.content, f"{where}.content")
        if role == Role.ROLE_SYSTEM:
            instructions += [part.text for part in parts if part.text.strip()]
        elif any(part.text.strip() or not part.HasField("text") for part in parts):
            turns.append((index, Message(role=role, parts=parts)))
    return instructions, turns


_ROLES: Final[Mapping[str, Role.ValueType]] = {
    "system": Role.ROLE_SYSTEM,
    "developer": Role.ROLE_SYSTEM,
    "user": Role.ROLE_USER,
    "assistant": Role.ROLE_ASSISTANT,
    "tool": Role.ROLE_TOOL,
    "function": Role.ROLE_TOOL,
}


def _parts(content: str | Sequence[ContentPart] | None, where: str) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Part(text=content)]
    return [part_from(part, f"{where}[{index}]") for index, part in enumerate(content)]
