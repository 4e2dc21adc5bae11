"""Theo's words for what the contract calls otherwise: codes of errors, and names of fields."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from trunkline_server.edges.status import STATUSES, Refusal, Status

_INVALID = "validation_error"
_MISSING = "not_found"
_SERVER = "server_error"
_LIMIT = "rate_limit_exceeded"

# Every reason of the contract. Where Theo has no word of its own for one, the nearest that says the same about whose
# turn it is.
CODES: Final[Mapping[str, str]] = {
    "INVALID_REQUEST": _INVALID,
    "EMPTY_PROMPT": "empty_prompt",
    "INVALID_API_VERSION": _INVALID,
    "CAPABILITY_UNSUPPORTED": _INVALID,
    "MODE_REQUIRES_JOB": _INVALID,
    "CONTEXT_LENGTH_EXCEEDED": _INVALID,
    "PAYLOAD_TOO_LARGE": _INVALID,
    "UPSTREAM_REJECTED": _INVALID,
    "NO_ELIGIBLE_PROVIDER": _INVALID,
    "UNIMPLEMENTED": _INVALID,
    "IDEMPOTENCY_CONFLICT": _INVALID,
    "CONTENT_BLOCKED": "guardrail_violation",
    "INVALID_API_KEY": "invalid_api_key",
    "INSUFFICIENT_CREDITS": "insufficient_credits",
    "BUDGET_EXHAUSTED": "insufficient_credits",
    "PERMISSION_DENIED": "forbidden",
    "ROUTE_NOT_ALLOWED": "forbidden",
    "MODEL_NOT_FOUND": _MISSING,
    "NOT_FOUND": _MISSING,
    "CONVERSATION_NOT_FOUND": _MISSING,
    "JOB_NOT_FOUND": _MISSING,
    "NOT_CACHED": _MISSING,
    "RATE_LIMITED": _LIMIT,
    "MODE_RATE_LIMITED": "mode_rate_limit_exceeded",
    "TOKEN_RATE_LIMITED": "token_limit_exceeded",
    "CONCURRENCY_EXHAUSTED": _LIMIT,
    "REQUEST_IN_PROGRESS": _LIMIT,
    "ALL_PROVIDERS_FAILED": _SERVER,
    "UPSTREAM_PROTOCOL_ERROR": _SERVER,
    "OVERLOADED": _SERVER,
    "DRAINING": _SERVER,
    "UNAVAILABLE": _SERVER,
    "UPSTREAM_TIMEOUT": _SERVER,
    "DEADLINE_EXCEEDED": _SERVER,
    "STREAM_INTERRUPTED": _SERVER,
    "CANCELLED": _SERVER,
    "INTERNAL_ERROR": _SERVER,
}
# Its own types; all others are OpenAI's.
_TYPES: Final[Mapping[str, str]] = {
    _MISSING: "not_found_error",
    "guardrail_violation": "guardrail_error",
    "insufficient_credits": "billing_error",
}
GUARDRAIL: Final = "CONTENT_BLOCKED"
GUARDRAIL_STATUS: Final = 422
MISSING_PROMPT: Final = "missing_prompt"
QUEUE_UNAVAILABLE: Final = "queue_unavailable"


@dataclass(frozen=True, slots=True)
class TheoRefusal(Refusal):
    """An error in Theo's words. `code` is empty where the table says it."""

    code: str = ""

    @property
    def status(self) -> Status:
        """Its row, with the one status that is another here."""
        row = STATUSES.get(self.reason, STATUSES["INTERNAL_ERROR"])
        return replace(row, http_status=GUARDRAIL_STATUS) if self.reason == GUARDRAIL else row


def theos(refused: Refusal, request_id: str, code: str = "") -> TheoRefusal:
    """An error of the gateway as one of Theo's, of the request that has this id."""
    if isinstance(refused, TheoRefusal):
        return replace(refused, request_id=request_id)
    values = {field.name: getattr(refused, field.name) for field in fields(refused)}
    return TheoRefusal(**{**values, "request_id": request_id, "code": code})


def envelope(refused: Refusal) -> dict[str, Any]:
    """The body of an error, and the last event of a stream that failed."""
    code = getattr(refused, "code", "") or CODES.get(refused.reason, _SERVER)
    return {
        "error": {
            # There is no key for the field.
            "message": f"{refused.field}: {refused.message}" if refused.field else refused.message,
            "type": _TYPES.get(code, refused.status.type),
            "code": code,
            "request_id": refused.request_id or None,
        }
    }


# The first prefix that fits counts.
_NAMES: Final = (
    ("spec.system_prompt", "persona.system_prompt"),
    ("spec.tool_options.max_hops", "max_iterations"),
    ("spec.tool_options.", ""),
    ("spec.sampling.", ""),
    ("spec.metadata_json", "metadata"),
    ("spec.mode_options_json", "options"),
    ("spec.cache", "prompt"),
    ("spec.", ""),
    ("page_size", "limit"),
    ("page_token", "cursor"),
    ("metadata_json", "metadata"),
    ("", ""),
)
_MESSAGE: Final = re.compile(r"spec\.messages\[(\d+)\](?:\.parts\[(\d+)\])?.*")
_FIELD: Final = re.compile(
    r"\bspec(?:\.[a-z_0-9]+(?:\[\d+\])*)+|\b(?:page_size|page_token|metadata_json)\b"
)
PROMPT: Final = "prompt"
CONVERSATION: Final = "conversation"
RESULTS: Final = "tool_results"


def field_of(path: str, origins: Sequence[str]) -> str:
    """A path of the contract in Theo's spelling.

    Args:
        origins: for each message of the spec, the field of the request that it was made of.
    """
    match = _MESSAGE.fullmatch(path)
    if match is not None:
        number, part = int(match[1]), int(match[2] or 0)
        origin = origins[number] if number < len(origins) else PROMPT
        if origin == PROMPT:
            return f"attachments[{part - 1}]" if part else PROMPT
        return f"{RESULTS}[{part}]" if origin == RESULTS else origin
    if path == "spec.messages":
        return PROMPT
    field = next(new + path[len(old) :] for old, new in _NAMES if path.startswith(old))
    return field.replace("parameters_schema_json", "input_schema")


def in_their_words(refused: Refusal, origins: Sequence[str] = ()) -> Refusal:
    """An error of the service, which names its fields in the text."""
    message = _FIELD.sub(lambda match: field_of(match[0], origins), refused.message)
    return replace(refused, message=message, field=None)
