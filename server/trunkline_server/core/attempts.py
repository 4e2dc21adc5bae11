"""An attempt as the contract tells it."""

from collections.abc import Mapping
from typing import Final

from google.rpc import code_pb2, error_details_pb2, status_pb2

from trunkline.v1.completion_pb2 import Attempt
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import CONSEQUENCES, Failure

DOMAIN: Final = "trunkline"

# What callers learn of a failed attempt: a reason and a code, never the provider's words.
REASONS: Final[Mapping[Failure, tuple[str, int]]] = {
    Failure.NOT_PROCESSED: ("PROVIDER_UNREACHABLE", code_pb2.UNAVAILABLE),
    Failure.AMBIGUOUS: ("PROVIDER_CONNECTION_LOST", code_pb2.UNAVAILABLE),
    Failure.SERVER: ("PROVIDER_UNAVAILABLE", code_pb2.UNAVAILABLE),
    Failure.THROTTLED: ("PROVIDER_RATE_LIMITED", code_pb2.RESOURCE_EXHAUSTED),
    Failure.EXHAUSTED: ("PROVIDER_QUOTA_EXHAUSTED", code_pb2.RESOURCE_EXHAUSTED),
    # Our key was refused. The caller's is fine, so never UNAUTHENTICATED.
    Failure.CREDENTIAL: ("PROVIDER_CREDENTIALS_REJECTED", code_pb2.UNAVAILABLE),
    Failure.CALLER: ("UPSTREAM_REJECTED", code_pb2.INVALID_ARGUMENT),
    Failure.CONTEXT_LENGTH: ("CONTEXT_LENGTH_EXCEEDED", code_pb2.INVALID_ARGUMENT),
    Failure.CAPABILITY: ("CAPABILITY_UNSUPPORTED", code_pb2.INVALID_ARGUMENT),
    Failure.MODEL_MISSING: ("PROVIDER_MODEL_MISSING", code_pb2.NOT_FOUND),
    Failure.POLICY: ("CONTENT_BLOCKED", code_pb2.INVALID_ARGUMENT),
    Failure.MODEL_FAULT: ("MALFORMED_MODEL_OUTPUT", code_pb2.INTERNAL),
    Failure.SLOW: ("UPSTREAM_TIMEOUT", code_pb2.DEADLINE_EXCEEDED),
    Failure.PROTOCOL: ("UPSTREAM_PROTOCOL_ERROR", code_pb2.INTERNAL),
    Failure.INTERRUPTED: ("STREAM_INTERRUPTED", code_pb2.ABORTED),
    Failure.DEADLINE: ("DEADLINE_EXCEEDED", code_pb2.DEADLINE_EXCEEDED),
    Failure.OUTRUN: ("ANOTHER_ATTEMPT_ANSWERED", code_pb2.CANCELLED),
}


def attempt_message(
    *,
    attempt_id: str,
    candidate: Candidate,
    hop: int,
    started_unix_s: float,
    duration_s: float,
    first_token_s: float | None,
    error: UpstreamError | None = None,
    http_status: int = 0,
    upstream_request_id: str = "",
) -> Attempt:
    """The contract's `Attempt`. Instants in seconds since the epoch, durations in seconds."""
    # Field by field, and only what is not the default: that is what messages are written fastest by.
    attempt = Attempt()
    attempt.id = attempt_id
    attempt.provider = candidate.provider
    attempt.model = candidate.id
    if http_status:
        attempt.http_status = http_status
    if hop:
        attempt.hop = hop
    if upstream_request_id:
        attempt.upstream_request_id = upstream_request_id
    set_time(attempt.start_time, started_unix_s)
    set_duration(attempt.duration, duration_s)
    if first_token_s is not None:
        set_duration(attempt.time_to_first_token, first_token_s)
    if error is not None:
        reason, code = REASONS[error.failure]
        attempt.error.CopyFrom(_status(reason, code, candidate.provider))
        attempt.retryable = CONSEQUENCES[error.failure].fails_over
    return attempt


def set_duration(duration: "object", seconds: float) -> None:
    """Write seconds into a google.protobuf.Duration."""
    whole = int(seconds)
    if whole:
        duration.seconds = whole  # type: ignore[attr-defined]
    duration.nanos = int((seconds - whole) * 1e9)  # type: ignore[attr-defined]


def set_time(timestamp: "object", unix_s: float) -> None:
    """Write seconds since the epoch into a google.protobuf.Timestamp."""
    whole = int(unix_s)
    timestamp.seconds = whole  # type: ignore[attr-defined]
    timestamp.nanos = int((unix_s - whole) * 1e9)  # type: ignore[attr-defined]


def _status(reason: str, code: int, provider: str) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=reason.replace("_", " ").lower())
    info = error_details_pb2.ErrorInfo(
        reason=reason, domain=DOMAIN, metadata={"provider": provider}
    )
    status.details.add().Pack(info)
    return status
