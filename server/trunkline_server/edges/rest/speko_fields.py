"""Speko's words for what the contract calls otherwise: paths of fields, and codes of errors."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.edges.status import Refusal

_INVALID = "VALIDATION_ERROR"
_FAILED = "COMPLETE_FAILED"

# Every reason of the contract. Speko's page has ten codes and these are all: where it has no word of its own for a
# reason, the nearest one that says the same about whose turn it is.
CODES: Final[Mapping[str, str]] = {
    "INVALID_REQUEST": _INVALID,
    "EMPTY_PROMPT": _INVALID,
    "INVALID_API_VERSION": _INVALID,
    "CAPABILITY_UNSUPPORTED": _INVALID,
    "MODE_REQUIRES_JOB": _INVALID,
    "CONTEXT_LENGTH_EXCEEDED": _INVALID,
    "CONTENT_BLOCKED": _INVALID,
    "PAYLOAD_TOO_LARGE": _INVALID,
    "UPSTREAM_REJECTED": _INVALID,
    "NO_ELIGIBLE_PROVIDER": _INVALID,
    "UNIMPLEMENTED": _INVALID,
    "IDEMPOTENCY_CONFLICT": _INVALID,
    "INVALID_API_KEY": "UNAUTHORIZED",
    "INSUFFICIENT_CREDITS": "INSUFFICIENT_CREDITS",
    "BUDGET_EXHAUSTED": "INSUFFICIENT_CREDITS",
    "PERMISSION_DENIED": "FORBIDDEN",
    "ROUTE_NOT_ALLOWED": "FORBIDDEN",
    "MODEL_NOT_FOUND": "NOT_FOUND",
    "NOT_FOUND": "NOT_FOUND",
    "CONVERSATION_NOT_FOUND": "NOT_FOUND",
    "JOB_NOT_FOUND": "NOT_FOUND",
    "NOT_CACHED": "NOT_FOUND",
    "RATE_LIMITED": "RATE_LIMITED",
    "TOKEN_RATE_LIMITED": "RATE_LIMITED",
    "CONCURRENCY_EXHAUSTED": "RATE_LIMITED",
    "REQUEST_IN_PROGRESS": "OVERLOADED",
    "OVERLOADED": "OVERLOADED",
    "DRAINING": "OVERLOADED",
    "UNAVAILABLE": "OVERLOADED",
    "ALL_PROVIDERS_FAILED": _FAILED,
    "UPSTREAM_PROTOCOL_ERROR": _FAILED,
    "UPSTREAM_TIMEOUT": _FAILED,
    "DEADLINE_EXCEEDED": _FAILED,
    "CANCELLED": _FAILED,
    "STREAM_INTERRUPTED": "STREAM_ERROR",
    "INTERNAL_ERROR": "INTERNAL_ERROR",
}


def code_of(refused: Refusal) -> str:
    """What goes into `code`."""
    return CODES.get(refused.reason, "INTERNAL_ERROR")


# The first prefix that fits counts.
_NAMES: Final = (
    ("spec.sampling.max_output_tokens", "maxTokens"),
    ("spec.sampling.", ""),
    ("spec.reasoning.effort", "reasoningEffort"),
    ("spec.intent.", "intent."),
    ("spec.constraints.allowed_providers", "constraints.allowedProviders.llm"),
    ("spec.constraints.allowed_models", "constraints.allowedProviders.llm"),
    ("spec.tool_options.choice.tool_name", "toolChoice.function.name"),
    ("spec.tool_options.choice.mode", "toolChoice"),
    ("spec.tool_options.choice", "toolChoice"),
    ("spec.tool_options.parallel_calls", "parallelToolCalls"),
    ("spec.tool_options.max_hops", "maxToolHops"),
    ("spec.tool_options.", ""),
    ("spec.session_id", "x-session-id"),
    ("spec.", ""),
)
_PART: Final = re.compile(r"(messages\[(\d+)\])\.parts\[(\d+)\](?:\.(\w+)(?:\.(\w+))?)?.*")
_PARTS: Final = re.compile(r"(messages\[\d+\])\.parts.*")
_SOURCE: Final = re.compile(r"(tools\[\d+\])\.(webhook|builtin|integration|inline|mcp)\b")
_RENAMED: Final = (
    (re.compile(r"\.parameters_schema_json\b"), ".parameters"),
    (re.compile(r"\.config_json\b"), ".config"),
    (re.compile(r"\.auth_header_secret_refs\b"), ".authHeaders"),
    (re.compile(r"(\.source)\.timeout\b"), r"\1.timeoutMs"),
    (re.compile(r"\.registered\b"), ".executionMode"),
)
_CALL_FIELDS: Final = {"id": ".id", "name": ".name", "arguments_json": ".args"}
_SNAKE: Final = re.compile(r"_([a-z])")
_FIELD: Final = re.compile(r"\bspec(?:\.[a-z_0-9]+(?:\[\d+\])*)+")


def field_of(path: str, spec: CompletionSpec) -> str:
    """A path of the contract in Speko's spelling.

    Args:
        spec: what the path is of: which of a message's parts are calls is known only there.
    """
    field = next(new + path[len(old) :] for old, new in _NAMES if path.startswith(old))
    if match := _PART.fullmatch(field):
        return match[1] + _part(match, spec)
    field = _PARTS.sub(r"\1.content", field)
    field = _SOURCE.sub(r"\1.source", field)
    for pattern, name in _RENAMED:
        field = pattern.sub(name, field)
    return _SNAKE.sub(lambda letter: letter[1].upper(), field)


def _part(match: re.Match[str], spec: CompletionSpec) -> str:
    """Of a message: the field that a part came from."""
    kind, inner = match[4], match[5]
    if kind == "tool_result" and inner == "tool_call_id":
        return ".toolCallId"
    if kind != "tool_call":
        return ".content"
    message, part = int(match[2]), int(match[3])
    parts = spec.messages[message].parts[:part] if message < len(spec.messages) else ()
    call = sum(earlier.HasField("tool_call") for earlier in parts)
    return f".toolCalls[{call}]{_CALL_FIELDS.get(inner or '', '')}"


def in_their_words(refused: Refusal, spec: CompletionSpec) -> Refusal:
    """An error of the service, which names its fields in the text."""
    message = _FIELD.sub(lambda match: field_of(match[0], spec), refused.message)
    return replace(refused, message=message, field=None)
