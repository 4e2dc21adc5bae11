"""OpenAI's request body to a `CompletionSpec`.

What the contract models is read into typed fields, and a wrong type is refused with its path. Every other parameter
goes to the upstream as it came, through `provider_options_json["*"]`.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from trunkline.v1.completion_spec_pb2 import (
    CacheMode,
    CompletionSpec,
    OptimizeFor,
    ReasoningEffort,
    Recovery,
    ToolChoiceMode,
    UnsupportedPolicy,
)
from trunkline.v1.message_pb2 import Media, Message, Part, Role
from trunkline_server.edges.rest.body import invalid, read_body
from trunkline_server.edges.rest.call_state import StateReader

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

ROLES: Final[Mapping[str, Role.ValueType]] = {
    "system": Role.ROLE_SYSTEM,
    "developer": Role.ROLE_DEVELOPER,
    "user": Role.ROLE_USER,
    "assistant": Role.ROLE_ASSISTANT,
    "tool": Role.ROLE_TOOL,
    "function": Role.ROLE_TOOL,
}
EFFORTS: Final[Mapping[str, ReasoningEffort.ValueType]] = {
    "none": ReasoningEffort.REASONING_EFFORT_NONE,
    "minimal": ReasoningEffort.REASONING_EFFORT_MINIMAL,
    "low": ReasoningEffort.REASONING_EFFORT_LOW,
    "medium": ReasoningEffort.REASONING_EFFORT_MEDIUM,
    "high": ReasoningEffort.REASONING_EFFORT_HIGH,
    "xhigh": ReasoningEffort.REASONING_EFFORT_XHIGH,
    "max": ReasoningEffort.REASONING_EFFORT_MAX,
}
CHOICE_MODES: Final[Mapping[str, ToolChoiceMode.ValueType]] = {
    "auto": ToolChoiceMode.TOOL_CHOICE_MODE_AUTO,
    "none": ToolChoiceMode.TOOL_CHOICE_MODE_NONE,
    "required": ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED,
}
AUDIO_TYPES: Final[Mapping[str, str]] = {"wav": "audio/wav", "mp3": "audio/mpeg"}
# The default of what is kept as it came. `Raw | None` would not do: msgspec reads only null into it.
NULL: Final = Raw(b"null")


class FunctionIn(Struct):
    """`function` of a tool call."""

    name: str
    arguments: str = ""


class ToolCallIn(Struct):
    """A tool call of the history."""

    id: str
    function: FunctionIn
    type: str = "function"


class ImageUrl(Struct):
    """`image_url` of a content part."""

    url: str
    detail: str | None = None


class InputAudio(Struct):
    """`input_audio` of a content part."""

    data: str
    format: str


class File(Struct):
    """`file` of a content part."""

    file_id: str | None = None
    filename: str | None = None
    file_data: str | None = None


class ContentPart(Struct):
    """One part of a message."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None
    input_audio: InputAudio | None = None
    file: File | None = None
    refusal: str | None = None


class MessageIn(Struct):
    """One message."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCallIn] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None


class FunctionTool(Struct):
    """`function` of a tool."""

    name: str
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None


class ToolIn(Struct):
    """A tool."""

    type: str
    function: FunctionTool | None = None


class SchemaFormat(Struct):
    """`json_schema` of a response format."""

    name: str
    description: str | None = None
    schema: Raw = NULL
    strict: bool | None = None


class ResponseFormatIn(Struct):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class NamedFunction(Struct):
    """A function by name."""

    name: str


class NamedTool(Struct):
    """A tool by name."""

    type: str = "function"
    function: NamedFunction | None = None


class AllowedTools(Struct):
    """`allowed_tools` of a tool choice."""

    tools: list[NamedTool]
    mode: Literal["auto", "required"] = "auto"


class ToolChoiceIn(Struct):
    """`tool_choice` as an object."""

    type: str
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class StreamOptionsIn(Struct):
    """`stream_options`."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class IntentIn(Struct, forbid_unknown_fields=True):
    """`trunkline.intent`."""

    language: str = ""
    region: str = ""
    optimize_for: Literal["balanced", "accuracy", "latency", "cost"] | None = None


class ConstraintsIn(Struct, forbid_unknown_fields=True):
    """`trunkline.constraints`."""

    allowed_providers: list[str] = []
    denied_providers: list[str] = []
    allowed_models: list[str] = []
    max_attempts: Int32 | None = None
    max_cost_nanos: Int64 | None = None
    first_token_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    disable_escalation: bool = False


CacheWord = Literal["allow", "bypass", "refresh", "only_if_cached"]


class Extension(Struct, forbid_unknown_fields=True):
    """The request's extra key `trunkline`: what the contract has and this API has no word for."""

    recovery: Literal["terminate", "continue"] | None = None  # Nothing can be taken back here.
    intent: IntentIn | None = None
    constraints: ConstraintsIn | None = None
    include_reasoning: bool = False
    reasoning_budget_tokens: Int32 | None = None
    top_k: Int32 | None = None
    unsupported: Literal["warn", "reject"] | None = None
    session_id: str = ""
    labels: dict[str, str] = {}
    mode: str = ""
    persona: str = ""
    skills: list[str] = []
    conversation_id: str = ""
    component_library: str = ""
    cache: CacheWord | None = None
    cache_max_age_s: float | None = None


class ChatRequest(Struct):
    """The body. A field that is null counts as absent, as OpenAI has it."""

    messages: list[MessageIn]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptionsIn | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_completion_tokens: Int32 | None = None
    max_tokens: Int32 | None = None
    stop: str | list[str] | None = None
    seed: Int64 | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    n: Int32 | None = None
    logprobs: bool | None = None
    top_logprobs: Int32 | None = None
    logit_bias: dict[str, float] | None = None
    verbosity: str | None = None
    tools: list[ToolIn] | None = None
    tool_choice: str | ToolChoiceIn | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormatIn | None = None
    reasoning_effort: str | None = None
    metadata: Raw = NULL
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    modalities: list[str] | None = None
    functions: Any = None
    function_call: Any = None
    trunkline: Extension | None = None
    extras: Raw | UnsetType = UNSET

    @property
    def includes_usage(self) -> bool:
        """Did the caller ask for usage at the end of the stream?"""
        return bool(self.stream_options and self.stream_options.include_usage)


KNOWN: Final = frozenset(ChatRequest.__struct_fields__) - {"extras"}

_decode_chat = msgspec.json.Decoder(ChatRequest).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


class _PlainRequest(ChatRequest, forbid_unknown_fields=True):
    """The body of nearly every request: all of it is known."""


_decode_plain = msgspec.json.Decoder(_PlainRequest).decode


def _decode(body: bytes) -> ChatRequest:
    chat: ChatRequest
    try:
        chat = _decode_plain(body)
        if chat.extras is UNSET:
            return chat
    except msgspec.ValidationError:
        chat = _decode_chat(body)
    extras = {name: value for name, value in _decode_fields(body).items() if name not in KNOWN}
    chat.extras = Raw(msgspec.json.encode(extras)) if extras else UNSET
    return chat


def read_chat_request(body: bytes) -> ChatRequest:
    """A body as it came.

    Raises:
        Refused: not JSON, too deep, or a field of the wrong type; `field` is its path.
    """
    return read_body(_decode, body)


def write_spec(chat: ChatRequest, spec: CompletionSpec) -> None:
    """Writes the request in the contract's words into an empty `spec`, in place: messages can be large.

    Each message becomes one message, so that paths keep their indices.

    Raises:
        Refused.
    """
    try:
        if chat.model:
            spec.model = chat.model
        states = StateReader()
        for index, message in enumerate(chat.messages):
            _message(message, index, spec.messages.add(), states)
        _sampling(chat, spec)
        if chat.tools or chat.tool_choice or chat.parallel_tool_calls is not None:
            _tools(chat, spec)
        if chat.response_format is not None:
            _response_format(chat.response_format, spec)
        if chat.reasoning_effort is not None:
            effort = EFFORTS.get(chat.reasoning_effort)
            if effort is None:
                raise invalid(f"must be one of {', '.join(EFFORTS)}", "reasoning_effort")
            spec.reasoning.effort = effort
        _rest(chat, spec)
        if chat.trunkline is not None:
            _extension(chat.trunkline, spec)
    except UnicodeEncodeError as error:
        raise invalid("a string holds half of a surrogate pair") from error


def _message(message: MessageIn, index: int, written: Message, states: StateReader) -> None:
    role = ROLES.get(message.role)
    content = message.content
    if (
        type(content) is str
        and role in _PLAIN
        and message.name is None
        and message.tool_calls is None
    ):
        # What nearly every message is.
        written.role = role
        written.parts.add().text = content
        return
    where = f"messages[{index}]"
    if role is None:
        raise invalid(f"must be one of {', '.join(ROLES)}", f"{where}.role")
    written.role = role
    if role == Role.ROLE_TOOL:
        _tool_result(message, where, written, states)
        return
    if message.name:
        written.name = message.name
    calls = [_call(call, written, states) for call in message.tool_calls or ()]
    if message.reasoning_content and not written.parts:
        written.parts.add().reasoning.text = message.reasoning_content
    if isinstance(content, str):
        if content or not calls:
            written.parts.add().text = content
    elif content is not None:
        for position, part in enumerate(content):
            written.parts.append(part_from(part, f"{where}.content[{position}]"))
    elif role != Role.ROLE_ASSISTANT:
        raise invalid("is needed", f"{where}.content")
    if message.refusal:
        written.parts.add().refusal = message.refusal
    written.parts.extend(calls)


_PLAIN: Final = frozenset({Role.ROLE_SYSTEM, Role.ROLE_DEVELOPER, Role.ROLE_USER})


def _call(call: ToolCallIn, written: Message, states: StateReader) -> Part:
    """The call's part; the reasoning that its id carries goes into the message before everything else."""
    call_id, reasoning, state = states.read(call.id)
    written.parts.extend(reasoning)
    part = Part()
    part.tool_call.id = call_id
    part.tool_call.name = call.function.name
    part.tool_call.arguments_json = call.function.arguments
    if state is not None:
        part.provider_state.CopyFrom(state)
    return part


def _tool_result(message: MessageIn, where: str, written: Message, states: StateReader) -> None:
    call_id = message.tool_call_id or (message.name if message.role == "function" else None)
    if not call_id:
        raise invalid("is needed", f"{where}.tool_call_id")
    result = written.parts.add().tool_result
    result.tool_call_id = states.read(call_id)[0]
    if message.name:
        result.tool_name = message.name
    if isinstance(message.content, str):
        result.parts.add().text = message.content
    else:
        for index, part in enumerate(message.content or ()):
            result.parts.append(part_from(part, f"{where}.content[{index}]"))


def part_from(part: ContentPart, where: str) -> Part:
    """A content part as the contract has it. Raises Refused, with a field below `where`."""
    written = Part()
    match part.type:
        case "text" if part.text is not None:
            written.text = part.text
        case "refusal" if part.refusal is not None:
            written.refusal = part.refusal
        case "image_url" if part.image_url is not None:
            written.image.CopyFrom(media_from(part.image_url.url, f"{where}.image_url.url"))
            written.image.detail = part.image_url.detail or ""
        case "input_audio" if part.input_audio is not None:
            mime_type = AUDIO_TYPES.get(part.input_audio.format)
            if mime_type is None:
                raise invalid("must be wav or mp3", f"{where}.input_audio.format")
            written.audio.data = bytes_from_base64(
                part.input_audio.data, f"{where}.input_audio.data"
            )
            written.audio.mime_type = mime_type
        case "file" if part.file is not None:
            if part.file.file_id:
                written.document.file_id = part.file.file_id
            elif part.file.file_data:
                written.document.CopyFrom(
                    media_from(part.file.file_data, f"{where}.file.file_data")
                )
            else:
                raise invalid("needs file_id or file_data", f"{where}.file")
            written.document.filename = part.file.filename or ""
        case "text" | "refusal" | "image_url" | "input_audio" | "file":
            raise invalid("is needed", f"{where}.{part.type}")
        case _:
            raise invalid("must be text, image_url, input_audio, file or refusal", f"{where}.type")
    return written


def media_from(url: str, where: str) -> Media:
    """A URL, or what a data URL holds. Raises Refused, naming the field `where`."""
    if not url.startswith("data:"):
        return Media(url=url)
    head, comma, data = url.partition(",")
    mime_type, _, encoding = head.removeprefix("data:").rpartition(";")
    if not comma or encoding.strip() != "base64" or not mime_type:
        raise invalid("must be data:TYPE;base64,DATA", where)
    return Media(data=bytes_from_base64(data, where), mime_type=mime_type)


def bytes_from_base64(text: str, where: str) -> bytes:
    """Raises Refused, naming the field `where`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("is no base64", where) from error


def _sampling(chat: ChatRequest, spec: CompletionSpec) -> None:
    limit = chat.max_completion_tokens
    if limit is None:
        limit = chat.max_tokens
    elif chat.max_tokens is not None and chat.max_tokens != limit:
        raise invalid("differs from max_completion_tokens", "max_tokens")
    sampling = spec.sampling
    if chat.temperature is not None:
        sampling.temperature = chat.temperature
    if chat.top_p is not None:
        sampling.top_p = chat.top_p
    if limit is not None:
        sampling.max_output_tokens = limit
    if chat.seed is not None:
        sampling.seed = chat.seed
    if chat.frequency_penalty is not None:
        sampling.frequency_penalty = chat.frequency_penalty
    if chat.presence_penalty is not None:
        sampling.presence_penalty = chat.presence_penalty
    if chat.n is not None:
        sampling.candidate_count = chat.n
    if chat.logprobs is not None:
        sampling.logprobs = chat.logprobs
    if chat.top_logprobs is not None:
        sampling.top_logprobs = chat.top_logprobs
    if chat.stop is not None:
        spec.sampling.stop.extend([chat.stop] if isinstance(chat.stop, str) else chat.stop)
    if chat.logit_bias:
        spec.sampling.logit_bias.update(chat.logit_bias)
    if chat.verbosity:
        spec.sampling.verbosity = chat.verbosity


def _tools(chat: ChatRequest, spec: CompletionSpec) -> None:
    options = spec.tool_options
    for index, tool in enumerate(chat.tools or ()):
        if tool.type != "function" or tool.function is None:
            raise invalid("only function tools are served", f"tools[{index}].type")
        function = tool.function
        written = options.tools.add(name=function.name, description=function.description or "")
        if not _is_null(function.parameters):
            written.parameters_schema_json = bytes(function.parameters).decode()
        if function.strict is not None:
            written.strict = function.strict
    if chat.parallel_tool_calls is not None:
        options.parallel_calls = chat.parallel_tool_calls
    choice = chat.tool_choice
    if isinstance(choice, str):
        mode = CHOICE_MODES.get(choice)
        if mode is None:
            raise invalid(f"must be one of {', '.join(CHOICE_MODES)} or an object", "tool_choice")
        options.choice.mode = mode
    elif choice is not None and choice.type == "function" and choice.function is not None:
        options.choice.tool_name = choice.function.name
    elif choice is not None and choice.type == "allowed_tools" and choice.allowed_tools is not None:
        options.choice.mode = CHOICE_MODES[choice.allowed_tools.mode]
        for index, named in enumerate(choice.allowed_tools.tools):
            if named.function is None:
                raise invalid("is needed", f"tool_choice.allowed_tools.tools[{index}].function")
            options.choice.allowed_tool_names.append(named.function.name)
    elif choice is not None:
        raise invalid("must be function or allowed_tools", "tool_choice.type")


def _is_null(raw: Raw) -> bool:
    return bytes(raw) == b"null"


def _response_format(wanted: ResponseFormatIn, spec: CompletionSpec) -> None:
    if wanted.type == "text":
        spec.response_format.text.SetInParent()
    elif wanted.type == "json_object":
        spec.response_format.json_object.SetInParent()
    elif wanted.json_schema is None or _is_null(wanted.json_schema.schema):
        raise invalid("is needed", "response_format.json_schema.schema")
    else:
        schema = spec.response_format.json_schema
        schema.name = wanted.json_schema.name
        schema.description = wanted.json_schema.description or ""
        schema.schema_json = bytes(wanted.json_schema.schema).decode()
        if wanted.json_schema.strict is not None:
            schema.strict = wanted.json_schema.strict


def _rest(chat: ChatRequest, spec: CompletionSpec) -> None:
    if chat.functions is not None or chat.function_call is not None:
        raise invalid("was replaced by tools, and is not served", "functions")
    if not _is_null(chat.metadata):
        spec.metadata_json = bytes(chat.metadata).decode()
    spec.end_user_id = chat.safety_identifier or chat.user or ""
    if chat.service_tier:
        spec.service_tier = chat.service_tier
    if chat.modalities:
        spec.output_modalities.extend(chat.modalities)
    if chat.extras is not UNSET:
        spec.provider_options_json["*"] = bytes(chat.extras).decode()


_OPTIMIZE: Final = {
    "balanced": OptimizeFor.OPTIMIZE_FOR_BALANCED,
    "accuracy": OptimizeFor.OPTIMIZE_FOR_ACCURACY,
    "latency": OptimizeFor.OPTIMIZE_FOR_LATENCY,
    "cost": OptimizeFor.OPTIMIZE_FOR_COST,
}
_RECOVERIES: Final = {
    "terminate": Recovery.RECOVERY_TERMINATE,
    "continue": Recovery.RECOVERY_CONTINUE,
}
_POLICIES: Final = {
    "warn": UnsupportedPolicy.UNSUPPORTED_POLICY_WARN,
    "reject": UnsupportedPolicy.UNSUPPORTED_POLICY_REJECT,
}
_CACHE_MODES: Final = {
    "allow": CacheMode.CACHE_MODE_ALLOW,
    "bypass": CacheMode.CACHE_MODE_BYPASS,
    "refresh": CacheMode.CACHE_MODE_REFRESH,
    "only_if_cached": CacheMode.CACHE_MODE_ONLY_IF_CACHED,
}
MAX_SECONDS: Final = (
    1e6  # Durations beyond this would not fit the contract's type; validation says what is allowed.
)


def _nanos(seconds: float) -> int:
    return int(max(-MAX_SECONDS, min(seconds, MAX_SECONDS)) * 1e9)


def _extension(extension: Extension, spec: CompletionSpec) -> None:
    if extension.recovery:
        spec.constraints.recovery = _RECOVERIES[extension.recovery]
    if extension.intent:
        intent = extension.intent
        spec.intent.language, spec.intent.region = intent.language, intent.region
        if intent.optimize_for:
            spec.intent.optimize_for = _OPTIMIZE[intent.optimize_for]
    if constraints := extension.constraints:
        written = spec.constraints
        written.allowed_providers.extend(constraints.allowed_providers)
        written.denied_providers.extend(constraints.denied_providers)
        written.allowed_models.extend(constraints.allowed_models)
        if constraints.max_attempts is not None:
            written.max_attempts = constraints.max_attempts
        if constraints.max_cost_nanos is not None:
            written.max_cost_nanos = constraints.max_cost_nanos
        for name in ("first_token_timeout", "idle_timeout"):
            seconds = getattr(constraints, f"{name}_s")
            if seconds is not None:
                getattr(written, name).FromNanoseconds(_nanos(seconds))
        if constraints.disable_escalation:
            written.disable_escalation = True
    if extension.include_reasoning:
        spec.reasoning.include = True
    if extension.reasoning_budget_tokens is not None:
        spec.reasoning.budget_tokens = extension.reasoning_budget_tokens
    if extension.top_k is not None:
        spec.sampling.top_k = extension.top_k
    if extension.unsupported:
        spec.unsupported_policy = _POLICIES[extension.unsupported]
    spec.session_id = extension.session_id
    spec.labels.update(extension.labels)
    spec.mode = extension.mode
    spec.persona = extension.persona
    spec.skills.extend(extension.skills)
    spec.conversation_id = extension.conversation_id
    spec.component_library = extension.component_library
    if extension.cache:
        spec.cache.mode = _CACHE_MODES[extension.cache]
    if extension.cache_max_age_s is not None:
        spec.cache.max_age.FromNanoseconds(_nanos(extension.cache_max_age_s))
