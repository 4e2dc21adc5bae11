"""What a call can raise, as one tree, read from google.rpc.Status and never from a message's words.

Each family mirrors one gRPC status code, and each leaf one reason of Trunkline's error table, so
that a reason newer than this client is still caught by its family:

    TrunklineError
    ├── InvalidRequest          INVALID_ARGUMENT     the caller can fix it
    │   ├── EmptyPrompt, CapabilityUnsupported, ModeRequiresJob, ContextLengthExceeded
    │   └── ContentBlocked, PayloadTooLarge, UpstreamRejected
    ├── Unauthenticated         UNAUTHENTICATED
    │   └── InvalidApiKey
    ├── PermissionDenied        PERMISSION_DENIED
    │   └── RouteNotAllowed
    ├── NotFound                NOT_FOUND
    │   └── ModelNotFound, ConversationNotFound, JobNotFound
    ├── FailedPrecondition      FAILED_PRECONDITION
    │   └── InsufficientCredits, BudgetExhausted, NoEligibleProvider
    ├── Conflict                ALREADY_EXISTS
    │   └── IdempotencyConflict, RequestAlreadyStarted
    ├── ResourceExhausted       RESOURCE_EXHAUSTED
    │   └── RateLimited
    │       └── ModeRateLimited, TokenRateLimited, ConcurrencyExhausted
    ├── Aborted                 ABORTED
    │   └── RequestInProgress, StreamInterrupted
    ├── Unavailable             UNAVAILABLE
    │   └── AllProvidersFailed, Overloaded, Draining
    ├── DeadlineExceeded        DEADLINE_EXCEEDED
    │   └── UpstreamTimeout
    ├── Cancelled               CANCELLED
    ├── Unimplemented           UNIMPLEMENTED
    └── InternalError           INTERNAL, UNKNOWN, DATA_LOSS and any other
        └── UpstreamProtocolError
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "trunkline"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing that is wrong with a request; `field` is its path, as "spec.messages[0].parts"."""

    field: str
    description: str
    reason: str = ""


class TrunklineError(Exception):
    """A call that did not end with OK.

    Attributes:
        message: for a person to read; programs look at the class or the reason.
        reason: Trunkline's word, UPPER_SNAKE_CASE. The name of `code` where none was sent, as when
            a proxy or the gRPC library itself made the error.
        code: the RPC's status.
        request_id: of the gateway's log; empty where the gateway was not reached.
        retry_after_s: how long to wait before the next try, if the gateway knows.
        provider: the upstream that is meant, or empty.
        field_violations: may be empty.
        retryable: may a program send the same request again by itself, after `retry_after_s`? False
            for AllProvidersFailed and StreamInterrupted, where another try may work but is the
            caller's decision: the gateway has retried already, or part of an answer was paid for.
        metadata: everything that ErrorInfo carries.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    default_reason: ClassVar[str] = ""
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        code: grpc.StatusCode | None = None,
        request_id: str = "",
        retry_after_s: float | None = None,
        provider: str = "",
        field_violations: Iterable[FieldViolation] = (),
        retryable: bool | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.reason = reason or self.default_reason or self.code.name
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.provider = provider
        self.field_violations = tuple(field_violations)
        self.retryable = self.default_retryable if retryable is None else retryable
        self.metadata: Mapping[str, str] = dict(metadata or {})

    def __str__(self) -> str:
        where = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.reason}: {self.message}{where}"


class InvalidRequest(TrunklineError):
    """The request itself is wrong; `field_violations` says where."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class EmptyPrompt(InvalidRequest):
    """No message has content."""

    default_reason = "EMPTY_PROMPT"


class CapabilityUnsupported(InvalidRequest):
    """The candidates that are left cannot do what was asked."""

    default_reason = "CAPABILITY_UNSUPPORTED"


class ModeRequiresJob(InvalidRequest):
    """This mode takes too long for a call: create a job."""

    default_reason = "MODE_REQUIRES_JOB"


class ContextLengthExceeded(InvalidRequest):
    """The messages do not fit into any candidate's context window."""

    default_reason = "CONTEXT_LENGTH_EXCEEDED"


class ContentBlocked(InvalidRequest):
    """A guardrail or a provider's filter refused the prompt."""

    default_reason = "CONTENT_BLOCKED"


class PayloadTooLarge(InvalidRequest):
    """The request is larger than the gateway takes: 32 MiB."""

    default_reason = "PAYLOAD_TOO_LARGE"


class UpstreamRejected(InvalidRequest):
    """A provider refused a request that the gateway thought valid."""

    default_reason = "UPSTREAM_REJECTED"


class Unauthenticated(TrunklineError):
    """The gateway does not know who asks."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class InvalidApiKey(Unauthenticated):
    """The key is missing, unknown, expired or revoked."""

    default_reason = "INVALID_API_KEY"


class PermissionDenied(TrunklineError):
    """The key may not do this."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class RouteNotAllowed(PermissionDenied):
    """The key's plan does not include this route."""

    default_reason = "ROUTE_NOT_ALLOWED"


class NotFound(TrunklineError):
    """What was named does not exist, or is not the caller's."""

    default_code = grpc.StatusCode.NOT_FOUND


class ModelNotFound(NotFound):
    """No model, alias or route has this name; the message names the nearest."""

    default_reason = "MODEL_NOT_FOUND"


class ConversationNotFound(NotFound):
    """No such conversation."""

    default_reason = "CONVERSATION_NOT_FOUND"


class JobNotFound(NotFound):
    """No such job."""

    default_reason = "JOB_NOT_FOUND"


class FailedPrecondition(TrunklineError):
    """Something else has to change before this request can be served."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class InsufficientCredits(FailedPrecondition):
    """The organisation cannot pay for this request."""

    default_reason = "INSUFFICIENT_CREDITS"


class BudgetExhausted(FailedPrecondition):
    """The credits ended while the answer was made."""

    default_reason = "BUDGET_EXHAUSTED"


class NoEligibleProvider(FailedPrecondition):
    """The constraints leave no candidate."""

    default_reason = "NO_ELIGIBLE_PROVIDER"


class Conflict(TrunklineError):
    """Something with this name or key exists already."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class IdempotencyConflict(Conflict):
    """The idempotency key belongs to another request."""

    default_reason = "IDEMPOTENCY_CONFLICT"


class RequestAlreadyStarted(Conflict):
    """A request with this idempotency key was begun, and how it ended is not known."""

    default_reason = "REQUEST_ALREADY_STARTED"


class ResourceExhausted(TrunklineError):
    """A limit was met; without a reason, the gRPC library's own on the size of messages."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class RateLimited(ResourceExhausted):
    """Too many requests; see `retry_after_s`."""

    default_reason = "RATE_LIMITED"
    default_retryable = True


class ModeRateLimited(RateLimited):
    """Too many requests in this mode."""

    default_reason = "MODE_RATE_LIMITED"


class TokenRateLimited(RateLimited):
    """Too many tokens."""

    default_reason = "TOKEN_RATE_LIMITED"


class ConcurrencyExhausted(RateLimited):
    """Too many requests at the same time."""

    default_reason = "CONCURRENCY_EXHAUSTED"


class Aborted(TrunklineError):
    """The call was given up half-way."""

    default_code = grpc.StatusCode.ABORTED


class RequestInProgress(Aborted):
    """A request with this idempotency key is still running: ask again later."""

    default_reason = "REQUEST_IN_PROGRESS"
    default_retryable = True


class StreamInterrupted(Aborted):
    """The answer broke off after part of it was sent."""

    default_reason = "STREAM_INTERRUPTED"


class Unavailable(TrunklineError):
    """The gateway cannot be reached, or cannot answer now."""

    default_code = grpc.StatusCode.UNAVAILABLE
    default_retryable = True


class AllProvidersFailed(Unavailable):
    """Every candidate was tried. The gateway has retried already."""

    default_reason = "ALL_PROVIDERS_FAILED"
    default_retryable = False


class Overloaded(Unavailable):
    """The gateway sheds load."""

    default_reason = "OVERLOADED"


class Draining(Unavailable):
    """This replica is about to stop; another one will answer."""

    default_reason = "DRAINING"


class DeadlineExceeded(TrunklineError):
    """The caller's deadline passed."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class UpstreamTimeout(DeadlineExceeded):
    """The providers took longer than the gateway waits for them."""

    default_reason = "UPSTREAM_TIMEOUT"


class Cancelled(TrunklineError):
    """The call was cancelled."""

    default_code = grpc.StatusCode.CANCELLED


class Unimplemented(TrunklineError):
    """This gateway does not offer the call, or not with this option."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class InternalError(TrunklineError):
    """A mistake of the gateway; its log has the rest under `request_id`."""

    default_code = grpc.StatusCode.INTERNAL


class UpstreamProtocolError(InternalError):
    """A provider's answer could not be understood."""

    default_reason = "UPSTREAM_PROTOCOL_ERROR"


def _leaves_of(family: type[TrunklineError]) -> Iterator[type[TrunklineError]]:
    for child in family.__subclasses__():
        yield child
        yield from _leaves_of(child)


_FAMILIES: Mapping[grpc.StatusCode, type[TrunklineError]] = {
    family.default_code: family for family in TrunklineError.__subclasses__()
}
_REASONS: Mapping[str, type[TrunklineError]] = {
    error.default_reason: error for error in _leaves_of(TrunklineError) if error.default_reason
}


class _EndedCall(Protocol):
    """What the errors of grpc and grpc.aio have in common."""

    def code(self) -> grpc.StatusCode | None: ...
    def details(self) -> str | None: ...
    def initial_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def error_from_rpc(error: grpc.RpcError) -> TrunklineError:
    """The error that an ended RPC stands for: its code's family, where no details can be read."""
    call = cast(_EndedCall, error)
    trailing = dict(call.trailing_metadata() or ())
    status = _status(trailing.get("grpc-status-details-bin"))
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.RequestInfo()
    retry = error_details_pb2.RetryInfo()
    bad_request = error_details_pb2.BadRequest()
    _unpack(status, info, request, retry, bad_request)

    code = call.code() or grpc.StatusCode.UNKNOWN
    kind = _FAMILIES.get(code, InternalError)
    if info.domain == DOMAIN:
        kind = _REASONS.get(info.reason, kind)
    return kind(
        status.message or call.details() or "",
        reason=info.reason or code.name,
        code=code,
        request_id=request.request_id or _request_id(trailing, call.initial_metadata()),
        retry_after_s=retry.retry_delay.ToNanoseconds() / 1e9
        if retry.HasField("retry_delay")
        else None,
        provider=info.metadata.get("provider", ""),
        field_violations=[
            FieldViolation(violation.field, violation.description, violation.reason)
            for violation in bad_request.field_violations
        ],
        retryable={"true": True, "false": False}.get(info.metadata.get("retryable", "")),
        metadata=info.metadata,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turns the errors of grpc and grpc.aio into ours, with the original as their cause."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error


def _status(encoded: str | bytes | None) -> status_pb2.Status:
    status = status_pb2.Status()
    if isinstance(encoded, bytes):
        try:
            status.ParseFromString(encoded)
        except DecodeError:
            # A proxy may have cut it off. The code and message of the RPC remain.
            status.Clear()
    return status


def _unpack(status: status_pb2.Status, *details: Message) -> None:
    """Fills each message from the detail of its type, where there is one that can be read."""
    for packed in status.details:
        for detail in details:
            try:
                packed.Unpack(detail)
            except DecodeError:
                detail.Clear()


def _request_id(
    trailing: Mapping[str, str | bytes], initial: Iterable[tuple[str, str | bytes]] | None
) -> str:
    found = trailing.get("x-request-id") or dict(initial or ()).get("x-request-id", "")
    return found if isinstance(found, str) else ""
