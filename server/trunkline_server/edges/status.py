"""The one table from an error to what callers see: gRPC code, HTTP status, and OpenAI's words for it.

The gRPC edge looks an error up by its class and packs it as google.rpc.Status; the REST edges read the reason out of
that status and find the same row. Nothing else knows a status code.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from trunkline_server.core.errors import (
    AllProvidersFailed,
    BudgetExhausted,
    InsufficientCredits,
    InvalidRequest,
    ServiceError,
    TrunklineError,
)

DOMAIN: Final = "trunkline"
MAX_MESSAGE_BYTES: Final = 512
MAX_METADATA_CHARS: Final = 128
# Trailers carry it as base64, the message twice, and the caller's limits. Together they stay under 4 KiB: from 8 KiB on
# clients lose them.
MAX_STATUS_BYTES: Final = 2_100
NEVER_RETRY_MS: Final = -1
JITTER: Final = 0.2
_FINAL: Final = (AllProvidersFailed, BudgetExhausted, InsufficientCredits)
LIMIT_HEADERS: Final = (
    "ratelimit",
    "x-ratelimit-",
)  # What every response says of the caller's limits.

Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class Status:
    """One row. `type` and `code` are OpenAI's; `code` None: the field is null."""

    grpc_code: grpc.StatusCode
    http_status: int
    type: str
    code: str | None
    retryable: bool = False


_INVALID = "invalid_request_error"
_SERVER = "server_error"
_LIMIT = "rate_limit_error"

STATUSES: Final[Mapping[str, Status]] = {
    "INVALID_REQUEST": Status(Code.INVALID_ARGUMENT, 400, _INVALID, None),
    "INVALID_API_VERSION": Status(Code.INVALID_ARGUMENT, 400, _INVALID, "invalid_api_version"),
    "EMPTY_PROMPT": Status(Code.INVALID_ARGUMENT, 400, _INVALID, "empty_prompt"),
    "CAPABILITY_UNSUPPORTED": Status(Code.INVALID_ARGUMENT, 400, _INVALID, "unsupported_parameter"),
    "MODE_REQUIRES_JOB": Status(Code.INVALID_ARGUMENT, 400, _INVALID, "mode_requires_job"),
    "CONTEXT_LENGTH_EXCEEDED": Status(
        Code.INVALID_ARGUMENT, 400, _INVALID, "context_length_exceeded"
    ),
    "CONTENT_BLOCKED": Status(Code.INVALID_ARGUMENT, 400, _INVALID, "content_filter"),
    "PAYLOAD_TOO_LARGE": Status(Code.INVALID_ARGUMENT, 413, _INVALID, "payload_too_large"),
    "UPSTREAM_REJECTED": Status(Code.INVALID_ARGUMENT, 400, _INVALID, "upstream_rejected"),
    "NO_ELIGIBLE_PROVIDER": Status(Code.FAILED_PRECONDITION, 400, _INVALID, "no_eligible_provider"),
    "INVALID_API_KEY": Status(Code.UNAUTHENTICATED, 401, "authentication_error", "invalid_api_key"),
    "INSUFFICIENT_CREDITS": Status(
        Code.FAILED_PRECONDITION, 402, "insufficient_quota", "insufficient_credits"
    ),
    "BUDGET_EXHAUSTED": Status(
        Code.FAILED_PRECONDITION, 402, "insufficient_quota", "budget_exhausted"
    ),
    "PERMISSION_DENIED": Status(
        Code.PERMISSION_DENIED, 403, "permission_error", "permission_denied"
    ),
    "ROUTE_NOT_ALLOWED": Status(
        Code.PERMISSION_DENIED, 403, "permission_error", "route_not_allowed"
    ),
    "MODEL_NOT_FOUND": Status(Code.NOT_FOUND, 404, _INVALID, "model_not_found"),
    "NOT_FOUND": Status(Code.NOT_FOUND, 404, _INVALID, "not_found"),
    "CONVERSATION_NOT_FOUND": Status(Code.NOT_FOUND, 404, _INVALID, "conversation_not_found"),
    "JOB_NOT_FOUND": Status(Code.NOT_FOUND, 404, _INVALID, "job_not_found"),
    "NOT_CACHED": Status(Code.NOT_FOUND, 404, _INVALID, "not_cached"),
    "IDEMPOTENCY_CONFLICT": Status(
        Code.ALREADY_EXISTS, 409, "conflict_error", "idempotency_conflict"
    ),
    "REQUEST_IN_PROGRESS": Status(Code.ABORTED, 409, "conflict_error", "request_in_progress", True),
    "RATE_LIMITED": Status(Code.RESOURCE_EXHAUSTED, 429, _LIMIT, "rate_limit_exceeded", True),
    "TOKEN_RATE_LIMITED": Status(
        Code.RESOURCE_EXHAUSTED, 429, _LIMIT, "token_limit_exceeded", True
    ),
    "CONCURRENCY_EXHAUSTED": Status(
        Code.RESOURCE_EXHAUSTED, 429, _LIMIT, "concurrency_exhausted", True
    ),
    "UNIMPLEMENTED": Status(Code.UNIMPLEMENTED, 501, _INVALID, "unimplemented"),
    "ALL_PROVIDERS_FAILED": Status(Code.UNAVAILABLE, 502, _SERVER, "all_providers_failed"),
    "UPSTREAM_PROTOCOL_ERROR": Status(Code.INTERNAL, 502, _SERVER, "upstream_protocol_error"),
    "OVERLOADED": Status(Code.UNAVAILABLE, 503, _SERVER, "overloaded", True),
    "DRAINING": Status(Code.UNAVAILABLE, 503, _SERVER, "overloaded", True),
    "UNAVAILABLE": Status(Code.UNAVAILABLE, 503, _SERVER, "unavailable", True),
    "UPSTREAM_TIMEOUT": Status(Code.DEADLINE_EXCEEDED, 504, _SERVER, "timeout"),
    "DEADLINE_EXCEEDED": Status(Code.DEADLINE_EXCEEDED, 504, _SERVER, "deadline_exceeded"),
    "STREAM_INTERRUPTED": Status(Code.ABORTED, 502, _SERVER, "stream_interrupted"),
    "CANCELLED": Status(Code.CANCELLED, 499, _SERVER, "cancelled"),
    "INTERNAL_ERROR": Status(Code.INTERNAL, 500, _SERVER, "internal_error"),
}

# What a gRPC status without our details means: it came from a proxy, a client library or the network.
REASONS_BY_CODE: Final[Mapping[grpc.StatusCode, str]] = {
    Code.INVALID_ARGUMENT: "INVALID_REQUEST",
    Code.OUT_OF_RANGE: "INVALID_REQUEST",
    Code.UNAUTHENTICATED: "INVALID_API_KEY",
    Code.PERMISSION_DENIED: "PERMISSION_DENIED",
    Code.NOT_FOUND: "NOT_FOUND",
    Code.RESOURCE_EXHAUSTED: "RATE_LIMITED",
    Code.UNIMPLEMENTED: "UNIMPLEMENTED",
    Code.UNAVAILABLE: "UNAVAILABLE",
    Code.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    Code.ABORTED: "STREAM_INTERRUPTED",
    Code.CANCELLED: "CANCELLED",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as a caller sees it, whichever way it came.

    Attributes:
        is_repeatable: as of `ServiceError`.
        headers: what the response says of the caller's limits.
    """

    reason: str
    message: str
    request_id: str = ""
    field: str | None = None
    retry_after_s: float | None = None
    is_repeatable: bool = True
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def status(self) -> Status:
        """Its row."""
        return STATUSES.get(self.reason, STATUSES["INTERNAL_ERROR"])


def chance() -> float:
    """The process's own, from 0 to 1. Looked up when it is asked for, so that one put in its place counts."""
    return random.random()


def jittered_s(wait_s: float, chance: Callable[[], float] = chance) -> float:
    """What a caller is told to wait: up to a fifth more, never less.

    Those who were refused together, or wait for the end of the same cooldown, would come back together otherwise.
    """
    return wait_s * (1 + JITTER * chance())


def _hint_s(
    error: TrunklineError, wait_s: float, request_id: str, chance: Callable[[], float]
) -> float:
    """Drawn once for a request: one whose stream breaks off is told twice, in its last event and in its status."""
    if error.hint is None or error.hint[0] != request_id:  # An error may be that of many requests.
        error.hint = request_id, jittered_s(wait_s, chance)
    return error.hint[1]


def status_message(
    error: BaseException, request_id: str, chance: Callable[[], float] = chance
) -> status_pb2.Status:
    """google.rpc.Status for an error, within the size that trailers can carry. A bug shows as INTERNAL_ERROR.

    The one place where a wait is jittered: trailers and HTTP headers say what this says.
    """
    reason = error.reason if isinstance(error, TrunklineError) else "INTERNAL_ERROR"
    row = STATUSES[reason]
    text = error.message if isinstance(error, TrunklineError) else "internal error"
    status = status_pb2.Status(code=row.grpc_code.value[0], message=_shortened(text))
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    info.metadata["retryable"] = "true" if row.retryable and _is_repeatable(error) else "false"
    if isinstance(error, TrunklineError):
        for key, value in error.metadata.items():
            info.metadata[key] = value[:MAX_METADATA_CHARS]
    status.details.add().Pack(info)
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    if isinstance(error, TrunklineError) and error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        hint_s = _hint_s(error, error.retry_after_s, request_id, chance)
        # Rounded up: who waits as told is not to be a moment too early.
        retry.retry_delay.FromMilliseconds(math.ceil(hint_s * 1000))
        status.details.add().Pack(retry)
    if isinstance(error, InvalidRequest):
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            entry = bad.field_violations.add(
                field=violation.field[:MAX_METADATA_CHARS],
                description=violation.description[:MAX_METADATA_CHARS],
            )
            if status.ByteSize() + bad.ByteSize() > MAX_STATUS_BYTES:
                bad.field_violations.remove(entry)
                break
        status.details.add().Pack(bad)
    return status


def _is_repeatable(error: BaseException) -> bool:
    return not isinstance(error, ServiceError) or error.is_repeatable


def _shortened(text: str) -> str:
    """The beginning that fits: on its way all but printable ASCII takes three bytes for each of its own."""
    sent_bytes = 0
    for i, letter in enumerate(text[:MAX_MESSAGE_BYTES]):
        is_plain = " " <= letter <= "~" and letter != "%"
        sent_bytes += 1 if is_plain else 3 * len(letter.encode())
        if sent_bytes > MAX_MESSAGE_BYTES:
            return text[:i]
    return text[:MAX_MESSAGE_BYTES]


def trailers(
    status: status_pb2.Status, error: BaseException
) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata that goes with a status."""
    found: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if isinstance(error, _FINAL) or not _is_repeatable(error):
        # We have retried already; callers doing it too would multiply the load on what is down, or effects of tools.
        found.append(("grpc-retry-pushback-ms", str(NEVER_RETRY_MS)))
    elif isinstance(error, TrunklineError) and error.retry_after_s is not None:
        found.append(("grpc-retry-pushback-ms", str(_retry_delay_ms(status))))
    return tuple(found)


def _retry_delay_ms(status: status_pb2.Status) -> int:
    retry = error_details_pb2.RetryInfo()
    any(detail.Unpack(retry) for detail in status.details)
    return retry.retry_delay.ToMilliseconds()


def refusal(code: grpc.StatusCode, details: str, metadata: Mapping[str, str | bytes]) -> Refusal:
    """Reads back what `status_message` wrote; makes the best of a status that is not ours."""
    packed = metadata.get("grpc-status-details-bin")
    status = status_pb2.Status()
    if isinstance(packed, bytes):
        try:
            status.ParseFromString(packed)
        except DecodeError:
            status.Clear()
    reason = REASONS_BY_CODE.get(code, "INTERNAL_ERROR")
    request_id, field, retry_after_s, is_repeatable = "", None, None, True
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.RequestInfo()
    retry = error_details_pb2.RetryInfo()
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(info):
            reason = info.reason if info.reason in STATUSES else reason
            field = info.metadata.get("field")
            is_repeatable = (
                not STATUSES[reason].retryable or info.metadata.get("retryable") != "false"
            )
        elif detail.Unpack(request):
            request_id = request.request_id
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
    message = status.message or (details if reason != "INTERNAL_ERROR" else "internal error")
    limits = tuple(
        (name, value)
        for name, value in metadata.items()
        if name.startswith(LIMIT_HEADERS) and isinstance(value, str)
    )
    return Refusal(reason, message, request_id, field, retry_after_s, is_repeatable, limits)
