"""Is a request well formed? Checked before anything is chosen, held or sent.

Every limit has a name here; `docs/limits.md` lists them. Violations carry the field's path from the request message.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import msgspec

from trunkline.v1.completion_spec_pb2 import (
    CacheMode,
    CachePolicy,
    CompletionSpec,
    OptimizeFor,
    ReasoningEffort,
    ReasoningOptions,
    Recovery,
    RoutingIntent,
    SamplingOptions,
    ToolChoiceMode,
    ToolOptions,
    UnsupportedPolicy,
)
from trunkline.v1.message_pb2 import Media, Message, Part, Role
from trunkline_server.core.errors import (
    MAX_VIOLATIONS,
    EmptyPrompt,
    FieldViolation,
    InvalidRequest,
    PayloadTooLarge,
)

MAX_REQUEST_BYTES: Final = 32 * 1024 * 1024
MAX_MESSAGES: Final = 10_000
MAX_PARTS: Final = 1_000
MAX_TOTAL_PARTS: Final = 20_000
MAX_NAME_CHARS: Final = 256
MAX_TOOLS: Final = 128
MAX_DESCRIPTION_CHARS: Final = 16 * 1024
MAX_SCHEMA_BYTES: Final = 256 * 1024
MAX_JSON_DEPTH: Final = 64
MAX_STOP: Final = 16
MAX_STOP_CHARS: Final = 1024
MAX_CHOICES: Final = 8
MAX_TOP_LOGPROBS: Final = 20
MAX_LOGIT_BIAS: Final = 1024
MAX_OUTPUT_TOKENS: Final = 10_000_000
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_LABELS: Final = 16
MAX_LABEL_CHARS: Final = 128
MAX_PROVIDER_OPTIONS_BYTES: Final = 256 * 1024
MAX_HOPS: Final = 20
MAX_ATTEMPTS: Final = 5
MAX_LIST: Final = 128  # Of any list of names: providers, models, skills, modalities.
MAX_IDEMPOTENCY_KEY_CHARS: Final = 255

MAX_SKILLS: Final = 16
MODALITIES: Final = frozenset({"text", "image"})

SLUG = re.compile(r"[a-z0-9-]{1,64}\Z")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
MIME_TYPE = re.compile(r"[a-zA-Z0-9!#$&^_.+-]{1,127}/[a-zA-Z0-9!#$&^_.+-]{1,127}(;.{0,200})?\Z")
MEDIA_URL = re.compile(r"(https?://|gs://|s3://)[^\s]{1,8000}\Z", re.IGNORECASE)

Violations = Iterator[FieldViolation]
Check = Callable[[CompletionSpec, Any], Violations]


def check_spec(spec: CompletionSpec, size_bytes: int | None = None) -> None:
    """Is it well formed?

    Args:
        size_bytes: its own, where that is known.

    Raises:
        InvalidRequest with every violation found (at most the first few), EmptyPrompt, PayloadTooLarge.
    """
    if (spec.ByteSize() if size_bytes is None else size_bytes) > MAX_REQUEST_BYTES:
        raise PayloadTooLarge("spec", f"larger than {MAX_REQUEST_BYTES} bytes")
    if not spec.messages and not spec.system_prompt:
        raise EmptyPrompt("spec.messages", "at least one message is needed")
    # As many as are shown: a request that is wrong a million times is not read to its end.
    violations = list(islice(_spec(spec), MAX_VIOLATIONS))
    if violations:
        raise InvalidRequest(violations)
    if not _has_content(spec.messages):
        raise EmptyPrompt("spec.messages", "at least one message must have content")


def json_depth_is_bounded(text: str | bytes, limit: int = MAX_JSON_DEPTH) -> bool:
    """Does JSON text nest at most `limit` levels? Text that is no JSON may give either answer.

    Every step is one pass in C: counting brackets tells for most texts; else strings and all that is no bracket are
    taken out, and then one level of nesting after the other, from the inside. Text with more strings or brackets than
    any request needs is refused unread.
    """
    data = text.encode() if isinstance(text, str) else text
    opening = data.count(b"[") + data.count(b"{")
    if opening <= limit:
        return True
    if data.count(b'"') > MAX_JSON_QUOTES:
        return False
    brackets = _STRING.sub(b"", data).translate(_AS_SQUARE, _NO_BRACKETS)
    if len(brackets) > MAX_JSON_BRACKETS:
        return False
    for _ in range(limit):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"")
    return not brackets


MAX_JSON_BRACKETS: Final = 400_000
MAX_JSON_QUOTES: Final = 4_000_000
# A string without an end counts as one, and nothing in it is read twice: otherwise every quote in it would be tried as
# the start of another one, which takes seconds for a few kilobytes.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def _spec(spec: CompletionSpec) -> Violations:
    # Only what is set costs anything: most requests set three or four of these fields.
    for descriptor, value in spec.ListFields():
        check = _CHECKS.get(descriptor.name)
        if check is not None:
            yield from check(spec, value)


def _enum(field: str, known: frozenset[int]) -> Check:
    def check(_: CompletionSpec, value: int) -> Violations:
        if value not in known:
            yield FieldViolation(field, "unknown value")

    return check


def _text(field: str) -> Check:
    def check(_: CompletionSpec, value: str) -> Violations:
        if len(value) > MAX_NAME_CHARS:
            yield FieldViolation(field, f"at most {MAX_NAME_CHARS} characters")

    return check


def _reasoning(_: CompletionSpec, reasoning: ReasoningOptions) -> Violations:
    if reasoning.effort not in _EFFORTS:
        yield FieldViolation("spec.reasoning.effort", "unknown value")
    if (
        reasoning.HasField("budget_tokens")
        and not 0 <= reasoning.budget_tokens <= MAX_OUTPUT_TOKENS
    ):
        yield FieldViolation("spec.reasoning.budget_tokens", f"0 to {MAX_OUTPUT_TOKENS}")


def _intent(_: CompletionSpec, intent: RoutingIntent) -> Violations:
    if intent.optimize_for not in _OPTIMIZE_FOR:
        yield FieldViolation("spec.intent.optimize_for", "unknown value")
    for field in ("language", "region"):
        if len(getattr(intent, field)) > MAX_NAME_CHARS:
            yield FieldViolation(f"spec.intent.{field}", f"at most {MAX_NAME_CHARS} characters")


def _provider_options(spec: CompletionSpec, _: object) -> Violations:
    for provider, options in spec.provider_options_json.items():
        where = f"spec.provider_options_json[{provider[:64]!r}]"
        violations = list(_json_object(where, options, MAX_PROVIDER_OPTIONS_BYTES))
        yield from violations
        if not violations and not _can_be_merged(options):
            yield FieldViolation(where, "holds a number or a character that can't be passed on")


def _can_be_merged(text: str) -> bool:
    """Can it be read again when a request is written? Who reads it there takes no 1e400 and no half of a surrogate."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _labels(spec: CompletionSpec, _: object) -> Violations:
    if len(spec.labels) > MAX_LABELS:
        yield FieldViolation("spec.labels", f"at most {MAX_LABELS}")
        return
    for name, value in spec.labels.items():
        if not name or len(name) > MAX_LABEL_CHARS or len(value) > MAX_LABEL_CHARS:
            yield FieldViolation(
                "spec.labels", f"names and values of 1 to {MAX_LABEL_CHARS} characters"
            )


def _skills(_: CompletionSpec, slugs: Sequence[str]) -> Violations:
    if len(slugs) > MAX_SKILLS:
        yield FieldViolation("spec.skills", f"at most {MAX_SKILLS}")
        return
    for i, slug in enumerate(slugs):
        if not SLUG.match(slug):
            yield FieldViolation(f"spec.skills[{i}]", "must match [a-z0-9-]{1,64}")
        elif slug in slugs[:i]:
            yield FieldViolation(f"spec.skills[{i}]", "is there twice")


def _model_overrides(_: CompletionSpec, overrides: Mapping[str, str]) -> Violations:
    if len(overrides) > MAX_LIST:
        yield FieldViolation("spec.model_overrides", f"at most {MAX_LIST}")
        return
    for mode, model in overrides.items():
        if not mode or len(mode) > MAX_NAME_CHARS or not model or len(model) > MAX_NAME_CHARS:
            yield FieldViolation(
                f"spec.model_overrides[{mode[:64]!r}]", f"1 to {MAX_NAME_CHARS} characters"
            )


def _modalities(_: CompletionSpec, modalities: Sequence[str]) -> Violations:
    for i, modality in enumerate(modalities[: len(MODALITIES) + 1]):
        if modality not in MODALITIES or modality in modalities[:i]:
            known = ", ".join(sorted(MODALITIES))
            yield FieldViolation(f"spec.output_modalities[{i}]", f"each of {known} at most once")


def _cache(_: CompletionSpec, policy: CachePolicy) -> Violations:
    if policy.mode not in _CACHE_MODES:
        yield FieldViolation("spec.cache.mode", "unknown value")
    if policy.HasField("max_age"):
        age = policy.max_age
        if not 0 <= age.seconds * 1_000_000_000 + age.nanos <= MAX_AGE_NANOS:
            yield FieldViolation("spec.cache.max_age", "0 s to 30 days")


MAX_AGE_NANOS: Final = 30 * 86_400 * 1_000_000_000


def _messages(spec: CompletionSpec, _: object) -> Violations:
    messages = spec.messages
    if len(messages) > MAX_MESSAGES:
        yield FieldViolation("spec.messages", f"at most {MAX_MESSAGES}")
        return
    part_count = 0
    calls: set[str] = set()
    answered: set[str] = set()
    for i, message in enumerate(messages):
        if message.role not in _ROLES:
            yield FieldViolation(
                f"spec.messages[{i}].role", "must be SYSTEM, DEVELOPER, USER, ASSISTANT or TOOL"
            )
        parts = message.parts
        part_count += len(parts)
        if part_count > MAX_TOTAL_PARTS:
            yield FieldViolation("spec.messages", f"at most {MAX_TOTAL_PARTS} parts in all")
            return
        if len(parts) > MAX_PARTS:
            yield FieldViolation(f"spec.messages[{i}].parts", f"at most {MAX_PARTS}")
            continue
        if len(message.name) > MAX_NAME_CHARS:
            yield FieldViolation(f"spec.messages[{i}].name", f"at most {MAX_NAME_CHARS} characters")
        for j, part in enumerate(parts):
            kind = part.WhichOneof("content")
            if kind == "text":
                continue
            where = f"spec.messages[{i}].parts[{j}]"
            if kind in _MEDIA:
                yield from _media(f"{where}.{kind}", getattr(part, kind))
            elif kind == "tool_call":
                yield from _tool_call(where, message, part, calls)
            elif kind == "tool_result":
                yield from _tool_result(where, part, calls, answered, spec.conversation_id)
            elif kind is None and not part.HasField("provider_state"):
                yield FieldViolation(where, "has no content")


def _tool_call(where: str, message: Message, part: Part, calls: set[str]) -> Violations:
    if message.role != Role.ROLE_ASSISTANT:
        yield FieldViolation(f"{where}.tool_call", "only the assistant calls tools")
    if not part.tool_call.id or len(part.tool_call.id) > MAX_CALL_ID_CHARS:
        yield FieldViolation(f"{where}.tool_call.id", f"1 to {MAX_CALL_ID_CHARS} characters")
    elif part.tool_call.id in calls:
        yield FieldViolation(f"{where}.tool_call.id", "is used twice")
    if not TOOL_NAME.match(part.tool_call.name):
        yield FieldViolation(f"{where}.tool_call.name", "must match [a-zA-Z0-9_-]{1,64}")
    if not json_depth_is_bounded(part.tool_call.arguments_json):
        yield FieldViolation(
            f"{where}.tool_call.arguments_json", f"nests deeper than {MAX_JSON_DEPTH} levels"
        )
    calls.add(part.tool_call.id)


# Ids carry opaque provider state through clients that know nothing of it, so they can be long.
MAX_CALL_ID_CHARS: Final = 64 * 1024


def _tool_result(
    where: str, part: Part, calls: set[str], answered: set[str], conversation_id: str
) -> Violations:
    result = part.tool_result
    # The call may be in the conversation: that is looked at when it is at hand.
    if result.tool_call_id not in calls and not conversation_id:
        yield FieldViolation(
            f"{where}.tool_result.tool_call_id", "answers no tool call of an earlier message"
        )
    elif result.tool_call_id in answered:
        yield FieldViolation(f"{where}.tool_result.tool_call_id", "the call was answered before")
    answered.add(result.tool_call_id)
    for k, inner in enumerate(result.parts):
        kind = inner.WhichOneof("content")
        if kind in _MEDIA:
            yield from _media(f"{where}.tool_result.parts[{k}].{kind}", getattr(inner, kind))
        elif kind != "text":
            yield FieldViolation(f"{where}.tool_result.parts[{k}]", "must be text or media")


def _media(where: str, media: Media) -> Violations:
    source = media.WhichOneof("source")
    if source is None:
        yield FieldViolation(where, "needs url, data or file_id")
    elif source == "url" and not MEDIA_URL.match(media.url):
        yield FieldViolation(
            f"{where}.url", "must be an http(s), gs or s3 URL of at most 8,000 characters"
        )
    elif source == "data" and (not media.data or not media.mime_type):
        yield FieldViolation(f"{where}.mime_type" if media.data else f"{where}.data", "is needed")
    elif source == "file_id" and not 1 <= len(media.file_id) <= MAX_NAME_CHARS:
        yield FieldViolation(f"{where}.file_id", f"1 to {MAX_NAME_CHARS} characters")
    if media.mime_type and not MIME_TYPE.match(media.mime_type):
        yield FieldViolation(f"{where}.mime_type", "is no media type")


def _within(field: str, options: SamplingOptions, low: float, high: float) -> Violations:
    if options.HasField(field):  # type: ignore[arg-type]
        value = getattr(options, field)
        if not low <= value <= high:  # NaN fails this too.
            yield FieldViolation(f"spec.sampling.{field}", f"{low} to {high}")


def _sampling(_: CompletionSpec, options: SamplingOptions) -> Violations:
    yield from _within("temperature", options, 0, 2)
    yield from _within("top_p", options, 0, 1)
    yield from _within("top_k", options, 0, 1_000_000)
    yield from _within("max_output_tokens", options, 1, MAX_OUTPUT_TOKENS)
    yield from _within("frequency_penalty", options, -2, 2)
    yield from _within("presence_penalty", options, -2, 2)
    yield from _within("candidate_count", options, 1, MAX_CHOICES)
    yield from _within("top_logprobs", options, 0, MAX_TOP_LOGPROBS)
    if len(options.stop) > MAX_STOP:
        yield FieldViolation("spec.sampling.stop", f"at most {MAX_STOP}")
        return
    for i, stop in enumerate(options.stop):
        if not 1 <= len(stop) <= MAX_STOP_CHARS:
            yield FieldViolation(f"spec.sampling.stop[{i}]", f"1 to {MAX_STOP_CHARS} characters")
    if len(options.logit_bias) > MAX_LOGIT_BIAS:
        yield FieldViolation("spec.sampling.logit_bias", f"at most {MAX_LOGIT_BIAS}")
        return
    for token, bias in options.logit_bias.items():
        if not -100 <= bias <= 100:
            yield FieldViolation(f"spec.sampling.logit_bias[{token[:32]!r}]", "-100 to 100")


def _tool_options(_: CompletionSpec, options: ToolOptions) -> Violations:
    if len(options.tools) > MAX_TOOLS:
        yield FieldViolation("spec.tool_options.tools", f"at most {MAX_TOOLS}")
        return
    names: set[str] = set()
    for i, tool in enumerate(options.tools):
        where = f"spec.tool_options.tools[{i}]"
        if not TOOL_NAME.match(tool.name):
            yield FieldViolation(f"{where}.name", "must match [a-zA-Z0-9_-]{1,64}")
        elif tool.name in names:
            yield FieldViolation(f"{where}.name", "is used twice")
        names.add(tool.name)
        if len(tool.description) > MAX_DESCRIPTION_CHARS:
            yield FieldViolation(
                f"{where}.description", f"at most {MAX_DESCRIPTION_CHARS} characters"
            )
        if tool.parameters_schema_json and (problem := schema_problem(tool.parameters_schema_json)):
            yield FieldViolation(f"{where}.parameters_schema_json", problem)
    if options.HasField("max_hops") and not 1 <= options.max_hops <= MAX_HOPS:
        yield FieldViolation("spec.tool_options.max_hops", f"1 to {MAX_HOPS}")
    choice = options.choice
    chosen = choice.WhichOneof("choice")
    if chosen == "mode" and choice.mode not in _CHOICE_MODES:
        yield FieldViolation("spec.tool_options.choice.mode", "unknown value")
    elif chosen == "tool_name" and choice.tool_name not in names:
        yield FieldViolation("spec.tool_options.choice.tool_name", "names no tool of this request")
    elif chosen == "mode" and choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED and not names:
        yield FieldViolation("spec.tool_options.choice.mode", "REQUIRED needs tools")
    if len(choice.allowed_tool_names) > MAX_TOOLS:
        yield FieldViolation("spec.tool_options.choice.allowed_tool_names", f"at most {MAX_TOOLS}")
        return
    for i, name in enumerate(choice.allowed_tool_names):
        if name not in names:
            yield FieldViolation(
                f"spec.tool_options.choice.allowed_tool_names[{i}]", "names no tool of this request"
            )


def _response_format(spec: CompletionSpec, _: object) -> Violations:
    kind = spec.response_format.WhichOneof("format")
    if kind == "json_schema":
        schema = spec.response_format.json_schema
        if not TOOL_NAME.match(schema.name):
            yield FieldViolation(
                "spec.response_format.json_schema.name", "must match [a-zA-Z0-9_-]{1,64}"
            )
        if problem := schema_problem(schema.schema_json) if schema.schema_json else "is needed":
            yield FieldViolation("spec.response_format.json_schema.schema_json", problem)


def _constraints(spec: CompletionSpec, _: object) -> Violations:
    constraints = spec.constraints
    for field in ("allowed_providers", "denied_providers", "allowed_models"):
        if len(getattr(constraints, field)) > MAX_LIST:
            yield FieldViolation(f"spec.constraints.{field}", f"at most {MAX_LIST}")
    if constraints.HasField("max_attempts") and not 1 <= constraints.max_attempts <= MAX_ATTEMPTS:
        yield FieldViolation("spec.constraints.max_attempts", f"1 to {MAX_ATTEMPTS}")
    if constraints.HasField("max_cost_nanos") and constraints.max_cost_nanos < 0:
        yield FieldViolation("spec.constraints.max_cost_nanos", "0 or more")
    for field in ("first_token_timeout", "idle_timeout"):
        if constraints.HasField(field):  # type: ignore[arg-type]
            duration = getattr(constraints, field)
            if not 0 < duration.seconds * 1_000_000_000 + duration.nanos <= MAX_TIMEOUT_NANOS:
                yield FieldViolation(
                    f"spec.constraints.{field}", "more than 0 s and at most 3,600 s"
                )
    if constraints.recovery not in _RECOVERIES:
        yield FieldViolation("spec.constraints.recovery", "unknown value")


MAX_TIMEOUT_NANOS: Final = 3600 * 1_000_000_000


def _json_object(where: str, text: str, limit_bytes: int) -> Violations:
    if len(text) > limit_bytes or len(text.encode()) > limit_bytes:
        yield FieldViolation(where, f"at most {limit_bytes} bytes")
    elif not json_depth_is_bounded(text):
        yield FieldViolation(where, f"nests deeper than {MAX_JSON_DEPTH} levels")
    else:
        try:
            is_object = isinstance(json.loads(text, parse_constant=_refuse_constant), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            yield FieldViolation(where, "must be a JSON object")


KNOWN_DIALECTS = ("http://json-schema.org/draft-0", "https://json-schema.org/draft/20")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# Tools repeat from request to request, so their schemas are checked once.
@lru_cache(maxsize=1024)
def _small_schema_problem(text: str) -> str:
    if not json_depth_is_bounded(text):
        return f"nests deeper than {MAX_JSON_DEPTH} levels"
    try:
        schema = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return "is no JSON"
    if not isinstance(schema, dict):
        return "must be a JSON object"
    forget_unknown_dialect(schema)
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        path = "/".join(str(step) for step in error.instance_path)[:64]
        return f"is no JSON Schema (at /{path})"
    except (jsonschema_rs.ReferencingError, ValueError):
        return "is no JSON Schema"
    return ""


def forget_unknown_dialect(schema: dict[str, Any]) -> None:
    """The library would look an unknown dialect up; a request may not make it do so."""
    if not str(schema.get("$schema", "")).startswith(KNOWN_DIALECTS):
        schema.pop("$schema", None)


def schema_problem(text: str) -> str:
    """What is wrong with a JSON Schema, or nothing. Never quotes more of it than a path."""
    if len(text) > MAX_SCHEMA_BYTES:
        return f"at most {MAX_SCHEMA_BYTES} bytes"
    return _small_schema_problem(text)


def _has_content(messages: Iterable[Message]) -> bool:
    for message in messages:
        for part in message.parts:
            if part.text or part.WhichOneof("content") not in (None, "text"):
                return True
    return False


_MEDIA = frozenset({"image", "audio", "document", "video"})
_ROLES = frozenset(Role.values()) - {Role.ROLE_UNSPECIFIED}
_EFFORTS = frozenset(ReasoningEffort.values())
_OPTIMIZE_FOR = frozenset(OptimizeFor.values())
_POLICIES = frozenset(UnsupportedPolicy.values())
_CACHE_MODES = frozenset(CacheMode.values())
_CHOICE_MODES = frozenset(ToolChoiceMode.values())
_RECOVERIES = frozenset(Recovery.values())

_CHECKS: Final[Mapping[str, Check]] = {
    "model": _text("spec.model"),
    "messages": _messages,
    "sampling": _sampling,
    "tool_options": _tool_options,
    "response_format": _response_format,
    "reasoning": _reasoning,
    "constraints": _constraints,
    "intent": _intent,
    "unsupported_policy": _enum("spec.unsupported_policy", _POLICIES),
    "metadata_json": lambda _, text: _json_object("spec.metadata_json", text, MAX_METADATA_BYTES),
    "skills": _skills,
    "model_overrides": _model_overrides,
    "output_modalities": _modalities,
    "cache": _cache,
    "mode_options_json": lambda _, text: _json_object(
        "spec.mode_options_json", text, MAX_PROVIDER_OPTIONS_BYTES
    ),
    "provider_options_json": _provider_options,
    "labels": _labels,
    **{
        field: _text(f"spec.{field}")
        for field in (
            "end_user_id",
            "session_id",
            "service_tier",
            "mode",
            "persona",
            "conversation_id",
            "component_library",
        )
    },
}
