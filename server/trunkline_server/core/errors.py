"""Everything that can go wrong with a request, by whose fault it is.

    TrunklineError
    ├── RequestError              the caller can fix it; its text reaches the caller; never failed over
    │   ├── InvalidRequest        names the fields (EmptyPrompt, CapabilityUnsupported, ModeRequiresJob,
    │   │                         PayloadTooLarge)
    │   ├── InvalidApiKey, PermissionDenied, RouteNotAllowed
    │   ├── InsufficientCredits, BudgetExhausted, RateLimited (TokenRateLimited, ConcurrencyExhausted)
    │   ├── IdempotencyConflict, RequestInProgress
    │   ├── ModelNotFound, NotFound (ConversationNotFound, JobNotFound), NotCached, NoEligibleProvider, NotSupported
    │   └── UpstreamRejected      a provider says that the request itself is wrong
    │       (ContextLengthExceeded, ContentBlocked)
    ├── ServiceError              ours, or all of the upstreams'; the caller sees reason and request id
    │   ├── Overloaded, Draining, StorageUnavailable
    │   ├── AllProvidersFailed, AllProvidersThrottled, ProvidersUnavailable
    │   ├── UpstreamTimeout, DeadlineExceeded
    │   └── StreamInterrupted     failed after content was sent
    └── UpstreamError             one attempt failed; the next may not. Never reaches an edge.

Only the text of a `RequestError` is shown to callers, so it never quotes an upstream or holds content.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trunkline.v1.completion_pb2 import Attempt
from trunkline_server.core.failure import Failure


class TrunklineError(Exception):
    """The root. `metadata` goes into ErrorInfo: short, and free of content and secrets.

    `reason` is the stable word that callers switch on: the class's name in upper snake case unless a class says
    otherwise. `retry_after_s` is when it may be tried again, as it is; `hint` is kept by the edges: the id of the
    request that was told of it last, and the seconds that it was told to wait.
    """

    reason = "INTERNAL_ERROR"
    message = ""
    retry_after_s: float | None = None
    hint: tuple[str, float] | None = None

    def __init_subclass__(cls) -> None:
        if "reason" not in cls.__dict__:
            cls.reason = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).upper()

    def __init__(self, message: str | None = None, **metadata: str) -> None:
        if message is not None:
            self.message = message
        self.metadata: Mapping[str, str] = metadata
        super().__init__(self.message)


class RequestError(TrunklineError):
    """The caller can fix it."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that is wrong. `field` is a path from the request, such as `spec.messages[2].parts[0]`."""

    field: str
    description: str


MAX_VIOLATIONS = 8  # More would not fit the 4 KiB that an error may take.


class InvalidRequest(RequestError):
    """Fields of the request that can't be served by anyone."""

    def __init__(self, violations: Sequence[FieldViolation] | str, description: str = "") -> None:
        if isinstance(violations, str):
            violations = [FieldViolation(violations, description)]
        self.violations = tuple(violations[:MAX_VIOLATIONS])
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in self.violations))


class EmptyPrompt(InvalidRequest):
    """There is nothing to answer."""


class CapabilityUnsupported(InvalidRequest):
    """No candidate can honour an option, and the caller asked not to drop it."""


class ModeRequiresJob(InvalidRequest):
    """The mode takes longer than a call: it is asked for as a job."""


class PayloadTooLarge(InvalidRequest):
    """The whole request is over the limit."""


class InvalidApiKey(RequestError):
    """The caller's key is missing or wrong."""

    message = "missing or unknown API key"


class PermissionDenied(RequestError):
    """The key is good, but not for this."""


class RouteNotAllowed(RequestError):
    """The key is good, but its plan does not have this route, model or mode."""


class InsufficientCredits(RequestError):
    """The balance does not cover what the request may cost."""

    message = "the credits do not cover what this request may cost"


class BudgetExhausted(RequestError):
    """A hard budget does not cover what the request may cost. `metadata` names it."""

    message = "a budget does not cover what this request may cost"


class RateLimited(RequestError):
    """The plan's limit is reached. `retry_after_s`: when this request would pass."""

    message = "too many requests"

    def __init__(
        self, message: str | None = None, *, retry_after_s: float | None = None, **metadata: str
    ) -> None:
        super().__init__(message, **metadata)
        self.retry_after_s = retry_after_s


class TokenRateLimited(RateLimited):
    """The same, of tokens per minute."""

    message = "too many tokens"


class ConcurrencyExhausted(RateLimited):
    """The same, of requests at once."""

    message = "too many requests at once"


class IdempotencyConflict(RequestError):
    """The idempotency key was used with another request."""

    message = "the idempotency key was used with another request"


class RequestInProgress(RequestError):
    """A request with this idempotency key has not ended yet."""

    message = "a request with this idempotency key is still running"
    retry_after_s = 1.0


class NotSupported(RequestError):
    """A part of the contract that this server does not serve."""

    reason = "UNIMPLEMENTED"


class ModelNotFound(RequestError):
    """No model, alias or route has this name."""


class NotFound(RequestError):
    """What was asked for by its id is not there, or not the caller's."""


class ConversationNotFound(NotFound):
    """No conversation of the caller's has this id."""

    message = "no conversation of yours has this id"


class JobNotFound(NotFound):
    """No job of the caller's has this id."""

    message = "no job of yours has this id"


class NotCached(RequestError):
    """Only an answer that was given before was wanted, and there is none."""

    message = "no such answer is cached"


class NoEligibleProvider(RequestError):
    """Models exist, but constraints or capabilities leave none of them."""


class UpstreamRejected(RequestError):
    """A provider refused the request as the caller's fault. Its text is logged, not shown."""

    message = "the provider rejected the request as invalid"


class ContextLengthExceeded(UpstreamRejected):
    """The messages do not fit the context window of any candidate."""

    message = "the messages are longer than the context window of the model"


class ContentBlocked(UpstreamRejected):
    """The provider's safety filter refused the prompt."""

    message = "the provider's content filter blocked the prompt"


class ServiceError(TrunklineError):
    """Not the caller's fault.

    Attributes:
        is_repeatable: the request had no effect yet. False: whoever sends it again may double one.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_s: float | None = None,
        attempts: Sequence[Attempt] = (),
        **metadata: str,
    ) -> None:
        super().__init__(message, **metadata)
        self.retry_after_s = retry_after_s
        self.attempts = tuple(attempts)
        self.is_repeatable = True


class Overloaded(ServiceError):
    """More requests are in flight than this process takes."""

    message = "too many requests in flight"


class Draining(ServiceError):
    """The process is going down."""

    message = "the server is shutting down"


class StorageUnavailable(ServiceError):
    """The database did not answer in time, or said that it can't."""

    reason = "UNAVAILABLE"
    message = "the accounts are unavailable for now"


class AllProvidersFailed(ServiceError):
    """Every candidate that was tried failed before content."""

    message = "all providers failed"


class AllProvidersThrottled(ServiceError):
    """Every candidate that was tried asked to come back later."""

    reason = "RATE_LIMITED"

    message = "all providers are rate limited"


class ProvidersUnavailable(ServiceError):
    """Nobody was asked: every candidate has failed lately and is left alone for now."""

    reason = "UNAVAILABLE"
    message = "all providers are unavailable for now"

    def __init__(self, keys: Sequence[str] = (), *, retry_after_s: float | None = None) -> None:
        named = f": {', '.join(keys)}" if keys else ""
        super().__init__(self.message + named, retry_after_s=retry_after_s)


class UpstreamTimeout(ServiceError):
    """No candidate produced content in the time it was given."""

    message = "no provider answered in time"


class DeadlineExceeded(ServiceError):
    """The caller's deadline, or the plan's, has passed."""

    message = "the deadline passed"


class StreamInterrupted(ServiceError):
    """The upstream failed after content was sent."""

    message = "the provider's stream broke off"


class UpstreamError(TrunklineError):
    """One attempt failed.

    Args:
        failure: what to do about it.
        message: for the log only; a provider's own words may be in it, so it is cut to 300 characters.
        http_status: 0 where there was none.
        retry_after_s: as the provider said, already bounded.
        is_neutral: it is nobody's fault: the request had less patience than the provider may need.
    """

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        http_status: int = 0,
        retry_after_s: float | None = None,
        code: str = "",
        upstream_request_id: str = "",
        is_neutral: bool = False,
    ) -> None:
        super().__init__(message[:300])
        self.failure = failure
        self.is_neutral = is_neutral
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.code = code[:64]
        self.upstream_request_id = upstream_request_id
