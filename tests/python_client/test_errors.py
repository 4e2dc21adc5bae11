"""From a status to the error that a caller catches."""

import pickle

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo

import trunkline
from tests.python_client.events import completed, routed, text_delta
from tests.python_client.scripted import Failure, error_info, request_info
from trunkline import FieldViolation, TrunklineError, text

Code = grpc.StatusCode

REASONS = [
    ("INVALID_REQUEST", Code.INVALID_ARGUMENT, trunkline.InvalidRequest, False),
    ("EMPTY_PROMPT", Code.INVALID_ARGUMENT, trunkline.EmptyPrompt, False),
    ("CAPABILITY_UNSUPPORTED", Code.INVALID_ARGUMENT, trunkline.CapabilityUnsupported, False),
    ("MODE_REQUIRES_JOB", Code.INVALID_ARGUMENT, trunkline.ModeRequiresJob, False),
    ("CONTEXT_LENGTH_EXCEEDED", Code.INVALID_ARGUMENT, trunkline.ContextLengthExceeded, False),
    ("CONTENT_BLOCKED", Code.INVALID_ARGUMENT, trunkline.ContentBlocked, False),
    ("PAYLOAD_TOO_LARGE", Code.INVALID_ARGUMENT, trunkline.PayloadTooLarge, False),
    ("UPSTREAM_REJECTED", Code.INVALID_ARGUMENT, trunkline.UpstreamRejected, False),
    ("INVALID_API_KEY", Code.UNAUTHENTICATED, trunkline.InvalidApiKey, False),
    ("INSUFFICIENT_CREDITS", Code.FAILED_PRECONDITION, trunkline.InsufficientCredits, False),
    ("BUDGET_EXHAUSTED", Code.FAILED_PRECONDITION, trunkline.BudgetExhausted, False),
    ("NO_ELIGIBLE_PROVIDER", Code.FAILED_PRECONDITION, trunkline.NoEligibleProvider, False),
    ("PERMISSION_DENIED", Code.PERMISSION_DENIED, trunkline.PermissionDenied, False),
    ("ROUTE_NOT_ALLOWED", Code.PERMISSION_DENIED, trunkline.RouteNotAllowed, False),
    ("MODEL_NOT_FOUND", Code.NOT_FOUND, trunkline.ModelNotFound, False),
    ("CONVERSATION_NOT_FOUND", Code.NOT_FOUND, trunkline.ConversationNotFound, False),
    ("JOB_NOT_FOUND", Code.NOT_FOUND, trunkline.JobNotFound, False),
    ("IDEMPOTENCY_CONFLICT", Code.ALREADY_EXISTS, trunkline.IdempotencyConflict, False),
    ("REQUEST_ALREADY_STARTED", Code.ALREADY_EXISTS, trunkline.RequestAlreadyStarted, False),
    ("REQUEST_IN_PROGRESS", Code.ABORTED, trunkline.RequestInProgress, True),
    ("RATE_LIMITED", Code.RESOURCE_EXHAUSTED, trunkline.RateLimited, True),
    ("MODE_RATE_LIMITED", Code.RESOURCE_EXHAUSTED, trunkline.ModeRateLimited, True),
    ("TOKEN_RATE_LIMITED", Code.RESOURCE_EXHAUSTED, trunkline.TokenRateLimited, True),
    ("CONCURRENCY_EXHAUSTED", Code.RESOURCE_EXHAUSTED, trunkline.ConcurrencyExhausted, True),
    ("ALL_PROVIDERS_FAILED", Code.UNAVAILABLE, trunkline.AllProvidersFailed, False),
    ("OVERLOADED", Code.UNAVAILABLE, trunkline.Overloaded, True),
    ("DRAINING", Code.UNAVAILABLE, trunkline.Draining, True),
    ("UPSTREAM_PROTOCOL_ERROR", Code.INTERNAL, trunkline.UpstreamProtocolError, False),
    ("UPSTREAM_TIMEOUT", Code.DEADLINE_EXCEEDED, trunkline.UpstreamTimeout, False),
    ("DEADLINE_EXCEEDED", Code.DEADLINE_EXCEEDED, trunkline.DeadlineExceeded, False),
    ("STREAM_INTERRUPTED", Code.ABORTED, trunkline.StreamInterrupted, False),
    ("CANCELLED", Code.CANCELLED, trunkline.Cancelled, False),
    ("UNIMPLEMENTED", Code.UNIMPLEMENTED, trunkline.Unimplemented, False),
    ("INTERNAL_ERROR", Code.INTERNAL, trunkline.InternalError, False),
]
FAMILIES = [
    (Code.INVALID_ARGUMENT, trunkline.InvalidRequest),
    (Code.UNAUTHENTICATED, trunkline.Unauthenticated),
    (Code.PERMISSION_DENIED, trunkline.PermissionDenied),
    (Code.NOT_FOUND, trunkline.NotFound),
    (Code.FAILED_PRECONDITION, trunkline.FailedPrecondition),
    (Code.ALREADY_EXISTS, trunkline.Conflict),
    (Code.RESOURCE_EXHAUSTED, trunkline.ResourceExhausted),
    (Code.ABORTED, trunkline.Aborted),
    (Code.UNAVAILABLE, trunkline.Unavailable),
    (Code.DEADLINE_EXCEEDED, trunkline.DeadlineExceeded),
    (Code.CANCELLED, trunkline.Cancelled),
    (Code.UNIMPLEMENTED, trunkline.Unimplemented),
    (Code.INTERNAL, trunkline.InternalError),
    (Code.UNKNOWN, trunkline.InternalError),
    (Code.DATA_LOSS, trunkline.InternalError),
    (Code.OUT_OF_RANGE, trunkline.InternalError),
]
# So that the library's own retries do not blur what is looked at here.
NO_RETRY = ("grpc-retry-pushback-ms", "-1")


async def error_of(client, gateway, failure: Failure) -> TrunklineError:
    gateway.plays([failure])
    with pytest.raises(TrunklineError) as raised:
        await client.complete("Hi")
    return raised.value


@pytest.mark.parametrize(
    ("reason", "code", "kind", "retryable"), REASONS, ids=[row[0] for row in REASONS]
)
async def test_each_reason_has_its_class(gateway, client, reason, code, kind, retryable):
    failure = Failure(code, "said so", [error_info(reason), request_info("req_12345")], [NO_RETRY])

    error = await error_of(client, gateway, failure)

    assert type(error) is kind
    assert (error.reason, error.code, error.message) == (reason, code, "said so")
    assert (error.request_id, error.retryable) == ("req_12345", retryable)
    assert str(error) == f"{reason}: said so (request req_12345)"


def test_every_class_is_reached_by_a_reason_or_is_a_family():
    reached = {kind for _, _, kind, _ in REASONS} | {kind for _, kind in FAMILIES}

    def below(kind: type[TrunklineError]) -> set[type[TrunklineError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    assert below(TrunklineError) - {TrunklineError} == reached


@pytest.mark.parametrize(("code", "kind"), FAMILIES, ids=[row[0].name for row in FAMILIES])
async def test_a_status_without_details_is_its_codes_family(gateway, client, code, kind):
    error = await error_of(client, gateway, Failure(code, "no", trailing=[NO_RETRY]))

    assert type(error) is kind
    assert (error.reason, error.code, error.request_id) == (code.name, code, "")


@pytest.mark.parametrize(("code", "kind"), FAMILIES, ids=[row[0].name for row in FAMILIES])
async def test_a_reason_of_a_newer_gateway_is_caught_by_its_family(gateway, client, code, kind):
    failure = Failure(code, "no", [error_info("TOO_NEW")], [NO_RETRY])

    error = await error_of(client, gateway, failure)

    assert (type(error), error.reason) == (kind, "TOO_NEW")


async def test_another_domains_reason_is_not_taken_for_ours(gateway, client):
    failure = Failure(
        Code.FAILED_PRECONDITION, "no", [error_info("RATE_LIMITED", domain="proxy.example")]
    )

    assert type(await error_of(client, gateway, failure)) is trunkline.FailedPrecondition


async def test_an_error_carries_what_its_details_say(gateway, client):
    violation = BadRequest.FieldViolation(
        field="spec.messages[0].role", description="unknown", reason="ENUM"
    )
    failure = Failure(
        Code.INVALID_ARGUMENT,
        "no",
        [
            error_info("INVALID_REQUEST", provider="p", retryable="true", extra="more"),
            RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
            BadRequest(field_violations=[violation]),
        ],
    )

    error = await error_of(client, gateway, failure)

    assert error.field_violations == (FieldViolation("spec.messages[0].role", "unknown", "ENUM"),)
    assert (error.retry_after_s, error.provider, error.retryable) == (1.5, "p", True)
    assert error.metadata == {"provider": "p", "retryable": "true", "extra": "more"}


@pytest.mark.parametrize("details", [b"\xff\xff", b"\x1a\x04\x12\x02\xff\xff"])
async def test_damaged_details_leave_code_and_message(gateway, client, details):
    failure = Failure(
        Code.NOT_FOUND,
        "no such model",
        trailing=[("grpc-status-details-bin", details), ("x-request-id", "req_12345")],
    )

    error = await error_of(client, gateway, failure)

    assert (type(error), error.message) == (trunkline.NotFound, "no such model")
    assert error.request_id == "req_12345"


async def test_an_error_after_content_comes_after_that_content(gateway, client):
    content = [routed(), *[text_delta("x")] * 50]
    failure = Failure(Code.ABORTED, "broke off", [error_info("STREAM_INTERRUPTED")])
    gateway.plays([*content, failure])

    seen, error, snapshot = await client.events("Hi")

    assert seen == content
    assert (type(error), str(error)) == (
        trunkline.StreamInterrupted,
        "STREAM_INTERRUPTED: broke off",
    )
    assert text(snapshot) == "x" * 50


async def test_a_stream_that_ends_without_its_last_event_is_an_error(gateway, client):
    gateway.plays([routed(), text_delta("Hé")])

    seen, error, _ = await client.events("Hi")

    assert (len(seen), type(error)) == (2, trunkline.StreamInterrupted)


async def test_a_gateway_that_is_not_there_is_unavailable(gateway, connect):
    with type(gateway)() as gone:
        target = gone.target
    client = connect(target)

    with pytest.raises(trunkline.Unavailable):
        await client.complete("Hi")


async def test_errors_of_the_catalog_are_of_the_same_tree(gateway, client):
    gateway.plays([Failure(Code.NOT_FOUND, "no", [error_info("MODEL_NOT_FOUND")])])

    with pytest.raises(trunkline.ModelNotFound):
        await client.get_model("nope")
    with pytest.raises(trunkline.ModelNotFound):
        await client.list_models()
    with pytest.raises(trunkline.ModelNotFound):
        await client.preview_route("Hi")


async def test_an_error_survives_pickling(gateway, client):
    failure = Failure(Code.NOT_FOUND, "no", [error_info("MODEL_NOT_FOUND", provider="p")])

    error = await error_of(client, gateway, failure)
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), vars(copy)) == (type(error), vars(error))


async def test_an_error_after_the_last_event_is_still_an_error(gateway, client):
    gateway.plays([text_delta("Hé"), completed(), Failure(Code.INTERNAL)])

    _, error, _ = await client.events("Hi")

    assert type(error) is trunkline.InternalError
