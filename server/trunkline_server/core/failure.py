"""How an attempt failed, and what follows: the one table of retry and failover.

A provider's status and error code become a `Failure` here, never by the words of a message. What a failure means for
the same candidate, for the next one and for the breaker is the `Consequence` of its row.

Sources: Envoy retry policy and outlier detection, gRFC A6, and the providers' published error pages (see
docs/reliability.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


class Failure(Enum):
    """Why an attempt failed."""

    NOT_PROCESSED = (
        auto()
    )  # Never reached the provider: refused, TLS, reset before the request was out.
    AMBIGUOUS = (
        auto()
    )  # Lost after the request was out and before any byte: it may have run, and may be billed.
    SERVER = auto()
    THROTTLED = auto()
    EXHAUSTED = auto()  # Out of money or quota: waiting a little does not help.
    CREDENTIAL = auto()  # Our key was refused.
    CALLER = auto()  # The request is wrong wherever it goes.
    CONTEXT_LENGTH = auto()  # Too long for this model; a larger window may do.
    CAPABILITY = auto()  # This model lacks something that the request needs.
    MODEL_MISSING = auto()  # The provider does not know the model: our configuration is at fault.
    POLICY = auto()  # The provider's filter refused the prompt.
    MODEL_FAULT = auto()  # A 4xx for something that the model, not the caller, wrote.
    SLOW = auto()  # No first token in time.
    PROTOCOL = auto()  # Not what the dialect promises: HTML, broken JSON, no end.
    INTERRUPTED = auto()  # Lost after content.
    DEADLINE = auto()  # Our caller's time was up: nobody's failure.
    OUTRUN = auto()  # A hedge, or what it hedged, came first: nobody's failure either.


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from a failure.

    Attributes:
        retries: how often the same candidate may be asked again when the budget allows it.
        needs_last: a retry is only for the last candidate; before that the next one is better.
        fails_over: the next candidate may be asked.
        trips: counts for the breaker.
        opens: opens the breaker at once.
        cools: keeps the candidate away until the provider's Retry-After.
        blames_request: what the caller sees is about their request when nobody answers.
    """

    retries: int = 0
    needs_last: bool = False
    fails_over: bool = True
    trips: bool = False
    opens: bool = False
    cools: bool = False
    blames_request: bool = False


CONSEQUENCES: Mapping[Failure, Consequence] = {
    Failure.NOT_PROCESSED: Consequence(retries=1, trips=True),
    Failure.AMBIGUOUS: Consequence(trips=True),
    Failure.SERVER: Consequence(retries=2, needs_last=True, trips=True, cools=True),
    # Asked again only when the wait is short: see attempts.THROTTLE_WAIT_S.
    Failure.THROTTLED: Consequence(retries=1, needs_last=True, cools=True),
    Failure.EXHAUSTED: Consequence(opens=True, cools=True),
    Failure.CREDENTIAL: Consequence(opens=True),
    Failure.CALLER: Consequence(fails_over=False, blames_request=True),
    Failure.CONTEXT_LENGTH: Consequence(blames_request=True),
    Failure.CAPABILITY: Consequence(blames_request=True),
    Failure.MODEL_MISSING: Consequence(),
    Failure.POLICY: Consequence(fails_over=False, blames_request=True),
    Failure.MODEL_FAULT: Consequence(),
    Failure.SLOW: Consequence(trips=True),
    Failure.PROTOCOL: Consequence(trips=True),
    # Taken up again, where that was asked for, by the same candidate only if there is no other.
    Failure.INTERRUPTED: Consequence(retries=1, needs_last=True, trips=True),
    Failure.DEADLINE: Consequence(fails_over=False),
    Failure.OUTRUN: Consequence(fails_over=False),
}

# Error codes as providers write them, in whichever field their dialect has for it. A code decides before the status.
CODES: Mapping[str, Failure] = {
    # OpenAI and its dialect
    "insufficient_quota": Failure.EXHAUSTED,
    "credit_balance_exhausted": Failure.EXHAUSTED,
    "billing_hard_limit_reached": Failure.EXHAUSTED,
    "enforced_spend_limit_reached": Failure.EXHAUSTED,
    "rate_limit_exceeded": Failure.THROTTLED,
    "context_length_exceeded": Failure.CONTEXT_LENGTH,
    "exceed_context_size_error": Failure.CONTEXT_LENGTH,  # llama.cpp
    "model_not_found": Failure.MODEL_MISSING,
    "DeploymentNotFound": Failure.MODEL_MISSING,  # Azure
    "unsupported_parameter": Failure.CAPABILITY,
    "unsupported_value": Failure.CAPABILITY,
    "content_filter": Failure.POLICY,
    "content_policy_violation": Failure.POLICY,
    "invalid_api_key": Failure.CREDENTIAL,
    "tool_use_failed": Failure.MODEL_FAULT,  # Groq: the model wrote a call that does not parse.
    "json_validate_failed": Failure.MODEL_FAULT,  # Groq, same for structured output.
    "server_error": Failure.SERVER,
    # Anthropic
    "overloaded_error": Failure.SERVER,
    "api_error": Failure.SERVER,
    "timeout_error": Failure.SERVER,
    "rate_limit_error": Failure.THROTTLED,
    "billing_error": Failure.EXHAUSTED,
    "authentication_error": Failure.CREDENTIAL,
    "permission_error": Failure.CREDENTIAL,
    "not_found_error": Failure.MODEL_MISSING,
    "request_too_large": Failure.CONTEXT_LENGTH,
    # Gemini: google.rpc.Code by name
    "UNAVAILABLE": Failure.SERVER,
    "INTERNAL": Failure.SERVER,
    "UNKNOWN": Failure.SERVER,
    "DEADLINE_EXCEEDED": Failure.SERVER,
    "RESOURCE_EXHAUSTED": Failure.THROTTLED,
    "UNAUTHENTICATED": Failure.CREDENTIAL,
    "PERMISSION_DENIED": Failure.CREDENTIAL,
    "API_KEY_INVALID": Failure.CREDENTIAL,  # ErrorInfo.reason; the code beside it is a plain INVALID_ARGUMENT.
    "NOT_FOUND": Failure.MODEL_MISSING,
    "quota_per_day": Failure.EXHAUSTED,  # Our name for a QuotaFailure whose quota id says so.
    # Bedrock
    "ThrottlingException": Failure.THROTTLED,
    "ServiceQuotaExceededException": Failure.EXHAUSTED,
    "ModelNotReadyException": Failure.SERVER,  # A 429 for a model that is being loaded: no limit was reached.
    "ModelTimeoutException": Failure.SERVER,
    "ModelErrorException": Failure.SERVER,
    "ModelStreamErrorException": Failure.SERVER,
    "InternalServerException": Failure.SERVER,
    "ServiceUnavailableException": Failure.SERVER,
    "ValidationException": Failure.CALLER,
    "ResourceNotFoundException": Failure.MODEL_MISSING,
    "AccessDeniedException": Failure.CREDENTIAL,
    # What AWS says of keys and signatures, for some of them with a 400.
    "UnrecognizedClientException": Failure.CREDENTIAL,
    "InvalidClientTokenId": Failure.CREDENTIAL,
    "InvalidSignatureException": Failure.CREDENTIAL,
    "IncompleteSignatureException": Failure.CREDENTIAL,
    "MissingAuthenticationTokenException": Failure.CREDENTIAL,
    "ExpiredTokenException": Failure.CREDENTIAL,
    "NotAuthorized": Failure.CREDENTIAL,
    "OptInRequired": Failure.CREDENTIAL,
    "RequestExpired": Failure.CREDENTIAL,  # Our clock is wrong.
}

STATUSES: Mapping[int, Failure] = {
    401: Failure.CREDENTIAL,
    402: Failure.EXHAUSTED,
    403: Failure.CREDENTIAL,
    404: Failure.MODEL_MISSING,
    408: Failure.SERVER,
    409: Failure.SERVER,
    413: Failure.CONTEXT_LENGTH,
    424: Failure.SERVER,
    425: Failure.SERVER,
    429: Failure.THROTTLED,
    498: Failure.SERVER,  # Groq: flex capacity exceeded.
    499: Failure.SERVER,
}


def classify(status: int, codes: tuple[str, ...] = ()) -> Failure:
    """The failure that a refused request stands for.

    Args:
        status: the HTTP status, or 200 for an error inside a stream.
        codes: the error's codes, the most telling first. Unknown ones are passed over.
    """
    for code in codes:
        known = CODES.get(code)
        if known is not None:
            return known
    if status >= 500:
        return Failure.SERVER
    if status in STATUSES:
        return STATUSES[status]
    # An error event inside a 200 with a code that nobody documents says nothing against the request: it was accepted.
    return (
        Failure.CALLER
        if 400 <= status < 500
        else Failure.SERVER
        if status == 200
        else Failure.PROTOCOL
    )
