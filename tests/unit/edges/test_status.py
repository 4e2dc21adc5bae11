"""The one table from error to what callers see, and the way back."""

import base64
import math
from collections.abc import Iterator
from itertools import groupby
from random import Random
from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2

from trunkline.v1.completion_pb2 import Attempt
from trunkline_server.core import errors
from trunkline_server.core.errors import (
    AllProvidersFailed,
    AllProvidersThrottled,
    FieldViolation,
    InvalidRequest,
    ModelNotFound,
    NotSupported,
    Overloaded,
    PayloadTooLarge,
    TrunklineError,
    UpstreamError,
)
from trunkline_server.core.failure import Failure
from trunkline_server.edges.rest.http import error_headers
from trunkline_server.edges.status import (
    REASONS_BY_CODE,
    STATUSES,
    Code,
    Refusal,
    refusal,
    status_message,
    trailers,
)

ID = "req_01ARYZ6S41TSV4RRFFQ69G5FAV"
MAX_BYTES = 4096


def leaves(kind: type[TrunklineError]) -> Iterator[type[TrunklineError]]:
    """Classes without subclasses, and those above them that can be raised too."""
    for below in kind.__subclasses__():
        yield below
        yield from leaves(below)


# An attempt's own error never reaches an edge; the two families are never raised.
RAISED = [
    kind
    for kind in leaves(TrunklineError)
    if kind not in (UpstreamError, errors.RequestError, errors.ServiceError)
]


def made(kind: type[TrunklineError]) -> TrunklineError:
    """One of this class."""
    return kind("spec.x", "is wrong") if issubclass(kind, InvalidRequest) else kind("it is wrong")


def no_chance() -> float:
    """Every wait as short as it gets."""
    return 0.0


def read_back(error: BaseException) -> Refusal:
    """What the other side of a call makes of an error, without chance."""
    status = status_message(error, ID, no_chance)
    code = next(code for code in Code if code.value[0] == status.code)
    return refusal(code, status.message, dict(trailers(status, error)))


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_every_error_has_a_row(kind):
    assert kind.reason in STATUSES


def test_every_row_has_an_http_status_that_goes_with_its_code():
    by_code: dict[Code, set[int]] = {}
    for row in STATUSES.values():
        by_code.setdefault(row.grpc_code, set()).add(row.http_status)

    assert by_code == {
        Code.INVALID_ARGUMENT: {400, 413},
        Code.FAILED_PRECONDITION: {400, 402},
        Code.UNAUTHENTICATED: {401},
        Code.PERMISSION_DENIED: {403},
        Code.NOT_FOUND: {404},
        Code.ALREADY_EXISTS: {409},
        Code.ABORTED: {409, 502},
        Code.RESOURCE_EXHAUSTED: {429},
        Code.UNIMPLEMENTED: {501},
        Code.UNAVAILABLE: {502, 503},
        Code.INTERNAL: {500, 502},
        Code.DEADLINE_EXCEEDED: {504},
        Code.CANCELLED: {499},
    }


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_a_status_is_read_back_as_the_error_that_it_was(kind):
    error = made(kind)
    field = "spec.x" if isinstance(error, InvalidRequest) else None

    assert read_back(error) == Refusal(kind.reason, error.message, ID, field, error.retry_after_s)


def test_a_field_and_a_wait_are_read_back():
    refused = NotSupported("not served yet", field="spec.persona")
    waits = Overloaded(retry_after_s=1.25)

    assert read_back(refused) == Refusal("UNIMPLEMENTED", "not served yet", ID, "spec.persona")
    assert read_back(waits) == Refusal("OVERLOADED", waits.message, ID, retry_after_s=1.25)


def test_a_bug_says_nothing_of_itself():
    found = read_back(ValueError("canary"))

    assert found == Refusal("INTERNAL_ERROR", "internal error", ID)
    assert b"canary" not in status_message(ValueError("canary"), ID).SerializeToString()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(code, REASONS_BY_CODE.get(code, "INTERNAL_ERROR")) for code in Code],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.parametrize("packed", [None, b"\xff\xff", b""], ids=["none", "damaged", "empty"])
def test_a_status_without_our_details_is_known_by_its_code(code, reason, packed):
    metadata = {} if packed is None else {"grpc-status-details-bin": packed}

    found = refusal(code, "as they say", metadata)

    message = "internal error" if reason == "INTERNAL_ERROR" else "as they say"
    assert found == Refusal(reason, message)
    assert found.status is STATUSES[reason]


def test_a_reason_that_is_not_ours_is_passed_over():
    status = status_message(ModelNotFound("no"), ID)
    info = error_details_pb2.ErrorInfo(reason="SOMETHING_NEW", domain="elsewhere")
    status.details[0].Pack(info)
    metadata = {"grpc-status-details-bin": status.SerializeToString()}

    assert refusal(Code.NOT_FOUND, "no", metadata).reason == "NOT_FOUND"


def test_violations_are_told_by_field():
    violations = [FieldViolation("spec.a", "too long"), FieldViolation("spec.b[1]", "unknown")]

    status = status_message(InvalidRequest(violations), ID)

    bad = error_details_pb2.BadRequest()
    assert status.details[-1].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("spec.a", "too long"),
        ("spec.b[1]", "unknown"),
    ]


LONG = {"ascii": "x", "quoted": "%", "two bytes": "é", "four bytes": "🙂", "control": "\x00"}


@pytest.mark.parametrize("letter", LONG.values(), ids=LONG)
@pytest.mark.parametrize(
    "error",
    [
        lambda letter: InvalidRequest([FieldViolation(letter * 4000, letter * 4000)] * 8),
        lambda letter: InvalidRequest([FieldViolation(letter * 60, letter * 60)] * 8),
        lambda letter: PayloadTooLarge(letter * 4000, letter * 4000),
        lambda letter: ModelNotFound(letter * 4000, nearest=letter * 4000),
        lambda letter: NotSupported(letter * 4000, field=letter * 4000),
        lambda letter: AllProvidersFailed(
            letter * 4000, attempts=[Attempt(id=letter * 4000)] * 5, provider=letter * 4000
        ),
    ],
    ids=["violations", "shorter violations", "a field", "a name", "a part", "attempts"],
)
def test_the_largest_error_stays_under_4_kib_as_it_travels(error, letter):
    status = status_message(error(letter), "r" * 64)

    packed = status.SerializeToString()
    as_sent = len(quote(status.message, safe="!\"#$&'()*+,/:;<=>?@[\\]^`{|}~ "))
    assert as_sent + len(base64.b64encode(packed)) <= MAX_BYTES
    assert len(status.message) > 20


@pytest.mark.parametrize(
    ("error", "pushback"),
    [
        (AllProvidersFailed(), "-1"),
        (Overloaded(retry_after_s=1.0), "1000"),
        (AllProvidersThrottled(retry_after_s=0.0004), "1"),
        (AllProvidersThrottled(), None),
        (ModelNotFound("no"), None),
    ],
    ids=lambda value: getattr(value, "reason", value),
)
def test_clients_are_told_when_to_come_again(error, pushback):
    status = status_message(error, ID, no_chance)

    found = dict(trailers(status, error))

    assert found.pop("grpc-status-details-bin") == status.SerializeToString()
    assert found == ({} if pushback is None else {"grpc-retry-pushback-ms": pushback})


@pytest.mark.parametrize("is_repeatable", [True, False])
def test_who_would_double_an_effect_is_told_not_to_come_again_over_every_edge(is_repeatable):
    error = Overloaded(retry_after_s=1.0)
    error.is_repeatable = is_repeatable
    status = status_message(error, ID, no_chance)
    sent = dict(trailers(status, error))

    read = refusal(STATUSES[error.reason].grpc_code, "", sent)

    assert sent["grpc-retry-pushback-ms"] == ("1000" if is_repeatable else "-1")
    assert read.is_repeatable is is_repeatable
    assert ((b"x-should-retry", b"false") in error_headers(read)) is not is_repeatable


WAITS = {
    kind.__name__: kind(retry_after_s=20.0)
    for kind in RAISED
    if issubclass(kind, errors.ServiceError | errors.RateLimited)
    and kind is not AllProvidersFailed  # Told never to come again.
} | {"RequestInProgress": errors.RequestInProgress()}


@pytest.mark.parametrize("drawn", [0.0, 0.37, 1.0])
@pytest.mark.parametrize("name", WAITS)
def test_a_wait_is_up_to_a_fifth_longer_and_the_same_over_every_edge(name, drawn):
    error = WAITS[name]
    wait_s = error.retry_after_s
    assert wait_s is not None

    status = status_message(error, f"{ID}-{drawn}", lambda: drawn)
    sent = dict(trailers(status, error))
    read = refusal(STATUSES[error.reason].grpc_code, "", sent)
    headers = dict(error_headers(read))

    told_ms = math.ceil(wait_s * (1 + 0.2 * drawn) * 1000)
    assert sent["grpc-retry-pushback-ms"] == str(told_ms)
    assert read.retry_after_s == told_ms / 1000
    assert headers[b"retry-after-ms"] == b"%d" % told_ms
    assert headers[b"retry-after"] == b"%d" % math.ceil(told_ms / 1000)


def test_those_who_wait_for_the_same_instant_come_back_spread_over_a_fifth_of_it():
    chance = Random(7).random
    error = errors.ProvidersUnavailable(retry_after_s=60.0)  # One that many requests share.

    told_s = []
    for number in range(1_000):
        status = status_message(error, f"request-{number}", chance)
        told_s.append(refusal(Code.UNAVAILABLE, "", dict(trailers(status, error))).retry_after_s)

    in_each_second = [sum(int(s) == second for s in told_s if s) for second in range(60, 72)]
    assert sum(in_each_second) == 1_000
    assert min(in_each_second) > 50


def test_a_request_whose_stream_breaks_off_is_told_the_same_twice():
    chance = Random(7).random
    error = errors.Draining(retry_after_s=1.0)

    event, status = (status_message(error, ID, chance) for _ in range(2))

    assert event == status
    assert status_message(error, "another", chance).details[-1] != status.details[-1]


def test_who_is_not_told_to_come_again_hears_of_no_wait():
    error = errors.InsufficientCredits()

    found = error_headers(read_back(error))

    assert not [name for name, _ in found if name.startswith(b"retry-after")]


def test_only_the_texts_of_requests_are_shown():
    error = UpstreamError(Failure.SERVER, "canary " * 100)

    assert len(error.message) == 300
    assert UpstreamError.reason not in STATUSES


def test_reasons_are_the_names_of_their_classes_in_snake_case_or_shared_on_purpose():
    shared = {
        reason: sorted(kind.__name__ for kind in kinds)
        for reason, kinds in groupby(sorted(RAISED, key=lambda k: k.reason), lambda k: k.reason)
    }

    assert shared.pop("RATE_LIMITED") == ["AllProvidersThrottled", "RateLimited"]
    assert shared.pop("UNAVAILABLE") == ["ProvidersUnavailable", "StorageUnavailable"]
    assert shared["UNIMPLEMENTED"] == ["NotSupported"]
    assert all(len(kinds) == 1 for kinds in shared.values())
