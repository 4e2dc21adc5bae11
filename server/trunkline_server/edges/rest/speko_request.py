"""Speko's request body, and the query of its preview, to a `CompletionSpec`.

Every field that Speko publishes is read into a type, and all others are refused with their path. Speko's own SDKs take
unknown fields out before they send, so what arrives is a slip, or younger than this file: a pin that is silently not
kept, or a limit that is misspelt, would cost more than a 400. One exception: `vertical`, which the first versions of
the SDKs put into every intent, is let through and changes nothing.
"""

from collections.abc import Mapping
from typing import Annotated, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Raw, Struct

from trunkline.v1.completion_service_pb2 import PreviewRouteRequest
from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    OptimizeFor,
    PreToolSpeech,
    ReasoningEffort,
    RoutingConstraints,
    Tool,
    ToolChoiceMode,
    WebhookResponseMode,
    WebhookSource,
)
from trunkline.v1.message_pb2 import Message, Role
from trunkline_server.edges.rest.body import invalid, read_body
from trunkline_server.edges.rest.call_state import StateReader

Value = TypeVar("Value")
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]

ROLES: Final[Mapping[str, Role.ValueType]] = {
    "system": Role.ROLE_SYSTEM,
    "user": Role.ROLE_USER,
    "assistant": Role.ROLE_ASSISTANT,
    "tool": Role.ROLE_TOOL,
}
OPTIMIZE: Final[Mapping[str, OptimizeFor.ValueType]] = {
    "balanced": OptimizeFor.OPTIMIZE_FOR_BALANCED,
    "accuracy": OptimizeFor.OPTIMIZE_FOR_ACCURACY,
    "latency": OptimizeFor.OPTIMIZE_FOR_LATENCY,
    "cost": OptimizeFor.OPTIMIZE_FOR_COST,
}
EFFORTS: Final[Mapping[str, ReasoningEffort.ValueType]] = {
    "none": ReasoningEffort.REASONING_EFFORT_NONE,
    "minimal": ReasoningEffort.REASONING_EFFORT_MINIMAL,
    "low": ReasoningEffort.REASONING_EFFORT_LOW,
    "medium": ReasoningEffort.REASONING_EFFORT_MEDIUM,
    "high": ReasoningEffort.REASONING_EFFORT_HIGH,
    "xhigh": ReasoningEffort.REASONING_EFFORT_XHIGH,
}
CHOICE_MODES: Final[Mapping[str, ToolChoiceMode.ValueType]] = {
    "auto": ToolChoiceMode.TOOL_CHOICE_MODE_AUTO,
    "none": ToolChoiceMode.TOOL_CHOICE_MODE_NONE,
    "required": ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED,
}
EXECUTION_MODES: Final = ("inline", "webhook", "builtin", "integration")
SPEECH: Final[Mapping[str, PreToolSpeech.ValueType]] = {
    "auto": PreToolSpeech.PRE_TOOL_SPEECH_AUTO,
    "always": PreToolSpeech.PRE_TOOL_SPEECH_ALWAYS,
    "never": PreToolSpeech.PRE_TOOL_SPEECH_NEVER,
}
RESPONSE_MODES: Final[Mapping[str, WebhookResponseMode.ValueType]] = {
    "sync": WebhookResponseMode.WEBHOOK_RESPONSE_MODE_SYNC,
    "async": WebhookResponseMode.WEBHOOK_RESPONSE_MODE_ASYNC,
}
# The default of what is kept as it came. `Raw | None` would not do: msgspec reads only null into it.
NULL: Final = Raw(b"null")


class _In(Struct, rename="camel", forbid_unknown_fields=True):
    """Names in camel case, and no others."""


class ToolCallIn(_In):
    """A tool call of the history. `args` is JSON, as text."""

    id: str
    name: str
    args: str


class MessageIn(_In):
    """One message."""

    role: str
    content: str
    tool_calls: list[ToolCallIn] | None = None
    tool_call_id: str | None = None
    is_error: bool | None = None


class IntentIn(_In):
    """What the caller needs."""

    language: str
    region: str | None = None
    optimize_for: str | None = None
    vertical: str | None = None


class AllowedProvidersIn(_In):
    """By modality. Only text is made here."""

    llm: list[str] | None = None
    stt: Raw = NULL
    tts: Raw = NULL
    s2s: Raw = NULL


class ConstraintsIn(_In):
    """Who may answer."""

    allowed_providers: AllowedProvidersIn | None = None


class InlineIn(_In, tag_field="kind", tag="inline"):
    """The caller runs it."""


class AuthHeaderIn(_In):
    """A header whose value is a secret of the operator's."""

    name: str
    secret_ref: str


class WebhookIn(_In, tag_field="kind", tag="webhook"):
    """The gateway calls an address."""

    url: str
    secret_ref: str
    headers: dict[str, str] | None = None
    auth_headers: list[AuthHeaderIn] | None = None
    timeout_ms: Int32 | None = None
    response_mode: str | None = None
    async_ack: str | None = None


class BuiltinIn(_In, tag_field="kind", tag="builtin"):
    """The gateway runs it itself."""

    name: str
    config: Raw = NULL


class IntegrationIn(_In, tag_field="kind", tag="integration"):
    """An app of Speko's own, which there is none of here."""

    installation_id: str
    app_key: str
    action_key: str
    config: Raw = NULL


SourceIn = InlineIn | WebhookIn | BuiltinIn | IntegrationIn


class ToolIn(_In):
    """A tool."""

    name: str
    description: str = ""
    parameters: Raw = NULL
    execution_mode: str | None = None
    source: SourceIn | None = None
    pre_tool_speech: str | None = None


class FunctionIn(_In):
    """A function by name."""

    name: str


class ToolChoiceIn(_In):
    """`toolChoice` as an object."""

    type: str
    function: FunctionIn


class CompleteIn(_In):
    """The body. A field that is null counts as absent."""

    messages: list[MessageIn]
    intent: IntentIn
    system_prompt: str | None = None
    temperature: float | None = None
    max_tokens: Int32 | None = None
    reasoning_effort: str | None = None
    constraints: ConstraintsIn | None = None
    tools: list[ToolIn] | None = None
    tool_choice: str | ToolChoiceIn | None = None
    parallel_tool_calls: bool | None = None
    max_tool_hops: Int32 | None = None


_decode = msgspec.json.Decoder(CompleteIn).decode


def read_complete(body: bytes, spec: CompletionSpec) -> None:
    """Writes a body in the contract's words into an empty `spec`, in place: messages can be large.

    Raises:
        Refused: naming the field in Speko's spelling.
    """
    asked = read_body(_decode, body)
    _intent(asked.intent, "intent.", spec)
    states = StateReader()
    for index, message in enumerate(asked.messages):
        _message(message, f"messages[{index}]", spec.messages.add(), states)
    _options(asked, spec)
    if asked.constraints is not None and asked.constraints.allowed_providers is not None:
        _allowed(asked.constraints.allowed_providers, spec.constraints)
    for index, tool in enumerate(asked.tools or ()):
        _tool(tool, f"tools[{index}]", spec.tool_options.tools.add())
    _tool_options(asked, spec)


def _one_of(table: Mapping[str, Value], word: str, field: str) -> Value:
    value = table.get(word)
    if value is None:
        raise invalid(f"must be one of {', '.join(table)}", field)
    return value


def _intent(intent: IntentIn, where: str, spec: CompletionSpec) -> None:
    if not intent.language.strip():
        raise invalid("is needed", f"{where}language")
    spec.intent.language = intent.language.strip()
    spec.intent.region = intent.region or ""
    if intent.optimize_for is not None:
        spec.intent.optimize_for = _one_of(OPTIMIZE, intent.optimize_for, f"{where}optimizeFor")


def _message(message: MessageIn, where: str, written: Message, states: StateReader) -> None:
    role = ROLES.get(message.role)
    if role is None:
        raise invalid(f"must be one of {', '.join(ROLES)}", f"{where}.role")
    written.role = role
    if role == Role.ROLE_TOOL:
        if not message.tool_call_id:
            raise invalid("is needed with the role tool", f"{where}.toolCallId")
        if message.tool_calls:
            raise invalid("only the assistant calls tools", f"{where}.toolCalls")
        result = written.parts.add().tool_result
        result.tool_call_id = states.read(message.tool_call_id)[0]
        result.parts.add().text = message.content
        result.is_error = bool(message.is_error)
        return
    if message.tool_call_id:
        raise invalid("goes with the role tool only", f"{where}.toolCallId")
    if message.is_error:
        raise invalid("goes with the role tool only", f"{where}.isError")
    calls = message.tool_calls or ()
    read = [states.read(call.id) for call in calls]
    for _, reasoning, _ in read:
        written.parts.extend(reasoning)
    if message.content or not calls:
        written.parts.add().text = message.content
    for call, (call_id, _, state) in zip(calls, read, strict=True):
        part = written.parts.add()
        part.tool_call.id = call_id
        part.tool_call.name = call.name
        part.tool_call.arguments_json = call.args
        if state is not None:
            part.provider_state.CopyFrom(state)


def _options(asked: CompleteIn, spec: CompletionSpec) -> None:
    if asked.system_prompt:
        spec.system_prompt = asked.system_prompt
    if asked.temperature is not None:
        spec.sampling.temperature = asked.temperature
    if asked.max_tokens is not None:
        spec.sampling.max_output_tokens = asked.max_tokens
    if asked.reasoning_effort is not None:
        effort = _one_of(EFFORTS, asked.reasoning_effort, "reasoningEffort")
        spec.reasoning.effort = effort


def _allowed(allowed: AllowedProvidersIn, written: RoutingConstraints) -> None:
    """`vendor` lets all models of a provider answer, `vendor:model` one of them."""
    where = "constraints.allowedProviders"
    for modality in ("stt", "tts", "s2s"):
        if bytes(getattr(allowed, modality)) != b"null":
            raise invalid("only llm is served here", f"{where}.{modality}")
    if allowed.llm is None:
        return
    if not allowed.llm:
        # As a list it would mean that everybody may.
        raise invalid("must name at least one provider", f"{where}.llm")
    vendors = [entry for entry in allowed.llm if ":" not in entry]
    models = [entry for entry in allowed.llm if entry.partition(":")[0] not in vendors]
    if vendors and models:
        # The contract's two lists both apply, so a provider without its models named could not answer.
        raise invalid("either providers or provider:model, not some of each", f"{where}.llm")
    written.allowed_providers.extend(vendors)
    written.allowed_models.extend(entry.replace(":", "/", 1) for entry in models)


def _tool(tool: ToolIn, where: str, written: Tool) -> None:
    written.name = tool.name
    written.description = tool.description
    if bytes(tool.parameters) != b"null":
        written.parameters_schema_json = bytes(tool.parameters).decode()
    if tool.pre_tool_speech is not None:
        written.pre_tool_speech = _one_of(SPEECH, tool.pre_tool_speech, f"{where}.preToolSpeech")
    mode, source = tool.execution_mode, tool.source
    if mode is not None and mode not in EXECUTION_MODES:
        raise invalid(f"must be one of {', '.join(EXECUTION_MODES)}", f"{where}.executionMode")
    kind = mode or "inline" if source is None else str(source.__struct_config__.tag)
    if kind == "integration" or mode == "integration":
        field = "executionMode" if mode == "integration" else "source.kind"
        raise invalid(f"{tool.name[:64]!r}: integrations are not served here", f"{where}.{field}")
    if mode is not None and kind != mode:
        raise invalid(f"must be {mode}, as executionMode says", f"{where}.source.kind")
    match source:
        case WebhookIn():
            _webhook(source, f"{where}.source", written.webhook)
        case BuiltinIn():
            written.builtin.name = source.name
            if bytes(source.config) != b"null":
                written.builtin.config_json = bytes(source.config).decode()
        case None if kind != "inline":
            # The operator has a tool of this name, whatever runs it.
            written.registered.SetInParent()
        case _:
            pass  # The contract's default: the caller runs it.


def _webhook(source: WebhookIn, where: str, written: WebhookSource) -> None:
    written.url = source.url
    written.secret_ref = source.secret_ref
    written.headers.update(source.headers or {})
    secrets = written.auth_header_secret_refs
    for index, header in enumerate(source.auth_headers or ()):
        if header.name in secrets:
            raise invalid("is used twice", f"{where}.authHeaders[{index}].name")
        secrets[header.name] = header.secret_ref
    if source.timeout_ms is not None:
        if source.timeout_ms <= 0:
            raise invalid("must be more than 0", f"{where}.timeoutMs")
        written.timeout.FromMilliseconds(source.timeout_ms)
    if source.response_mode is not None:
        mode = _one_of(RESPONSE_MODES, source.response_mode, f"{where}.responseMode")
        written.response_mode = mode
    written.async_ack = source.async_ack or ""


def _tool_options(asked: CompleteIn, spec: CompletionSpec) -> None:
    choice = asked.tool_choice
    if isinstance(choice, str):
        spec.tool_options.choice.mode = _one_of(CHOICE_MODES, choice, "toolChoice")
    elif choice is not None:
        if choice.type != "function":
            raise invalid("must be function", "toolChoice.type")
        spec.tool_options.choice.tool_name = choice.function.name
    if asked.parallel_tool_calls is not None:
        spec.tool_options.parallel_calls = asked.parallel_tool_calls
    if asked.max_tool_hops is not None:
        spec.tool_options.max_hops = asked.max_tool_hops


MAX_PARAMETERS: Final = 16
# Speko's page spells the same parameter in two ways; `vertical` as above.
_PARAMETERS: Final[Mapping[str, str]] = {
    "language": "language",
    "region": "region",
    "optimizeFor": "optimize_for",
    "optimize_for": "optimize_for",
    "vertical": "vertical",
    # Our own.
    "model": "model",
    "requestId": "request_id",
}


def read_preview(query: str) -> PreviewRouteRequest:
    """The query of a preview, without its question mark.

    Raises:
        Refused: naming the parameter.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise invalid(f"at most {MAX_PARAMETERS} parameters") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        known = _PARAMETERS.get(name)
        if known is None:
            raise invalid(f"must be one of {', '.join(_PARAMETERS)}", name[:64])
        if found.setdefault(known, value) != value:
            raise invalid("comes twice", name)
    if "request_id" in found:
        if len(found) > 1:
            raise invalid("stands alone", "requestId")
        return PreviewRouteRequest(request_id=found["request_id"])
    request = PreviewRouteRequest()
    spec = request.spec
    spec.model = found.get("model", "")
    intent = IntentIn(
        language=found.get("language", ""),
        region=found.get("region"),
        optimize_for=found.get("optimize_for") or None,
    )
    _intent(intent, "", spec)
    return request
