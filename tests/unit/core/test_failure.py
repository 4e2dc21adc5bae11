"""The table of failures: complete, and as docs/reliability.md promises."""

import pytest
from google.rpc import code_pb2, error_details_pb2

from trunkline_server.core.attempts import DOMAIN, REASONS, attempt_message
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import CODES, CONSEQUENCES, STATUSES, Failure, classify

CANDIDATE = Candidate("p", "m", "m-1")


def test_every_failure_has_a_consequence_and_a_reason():
    assert set(CONSEQUENCES) == set(REASONS) == set(Failure)


def test_every_reason_is_upper_snake_case_and_a_code_that_is_an_error():
    for reason, code in REASONS.values():
        assert reason.replace("_", "").isalpha()
        assert reason == reason.upper()
        assert code != code_pb2.OK
        assert code in code_pb2.Code.values()


def test_our_refused_key_never_looks_like_the_callers():
    assert REASONS[Failure.CREDENTIAL][1] == code_pb2.UNAVAILABLE


def test_only_what_would_fail_anywhere_stays_with_the_first_candidate():
    stays = {failure for failure, row in CONSEQUENCES.items() if not row.fails_over}

    assert stays == {Failure.CALLER, Failure.POLICY, Failure.DEADLINE, Failure.OUTRUN}


def test_what_says_nothing_about_a_provider_is_not_held_against_it():
    neutral = {failure for failure, row in CONSEQUENCES.items() if not (row.trips or row.opens)}

    assert neutral == {
        Failure.THROTTLED,
        Failure.CALLER,
        Failure.CONTEXT_LENGTH,
        Failure.CAPABILITY,
        Failure.MODEL_MISSING,
        Failure.POLICY,
        Failure.MODEL_FAULT,
        Failure.DEADLINE,
        Failure.OUTRUN,
    }


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (200, Failure.SERVER),
        (302, Failure.PROTOCOL),
        (400, Failure.CALLER),
        (401, Failure.CREDENTIAL),
        (402, Failure.EXHAUSTED),
        (403, Failure.CREDENTIAL),
        (404, Failure.MODEL_MISSING),
        (408, Failure.SERVER),
        (413, Failure.CONTEXT_LENGTH),
        (422, Failure.CALLER),
        (429, Failure.THROTTLED),
        *((status, Failure.SERVER) for status in (500, 502, 503, 504, 520, 524, 529)),
    ],
)
def test_a_status_stands_for_a_failure(status, failure):
    assert classify(status) is failure


@pytest.mark.parametrize("status", [200, 400, 429, 503])
@pytest.mark.parametrize("code", CODES)
def test_a_known_code_decides_before_the_status(code, status):
    assert classify(status, ("no_code_of_anyone", code)) is CODES[code]


def test_the_first_known_code_decides():
    assert classify(400, ("insufficient_quota", "rate_limit_exceeded")) is Failure.EXHAUSTED


@pytest.mark.parametrize("status", STATUSES)
def test_unknown_codes_leave_it_to_the_status(status):
    assert classify(status, ("", "no_code_of_anyone")) is STATUSES[status]


@pytest.mark.parametrize("failure", Failure)
def test_callers_learn_a_reason_and_a_code_and_never_the_providers_words(failure):
    error = UpstreamError(failure, "canary", http_status=418, code="canary")

    attempt = attempt_message(
        attempt_id="cmpl_1.0-1",
        candidate=CANDIDATE,
        hop=0,
        started_unix_s=1_700_000_000.25,
        duration_s=1.5,
        first_token_s=0.75,
        error=error,
        http_status=418,
    )

    reason, code = REASONS[failure]
    info = error_details_pb2.ErrorInfo()
    assert attempt.error.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (reason, DOMAIN, {"provider": "p"})
    assert attempt.error.code == code
    assert attempt.retryable is CONSEQUENCES[failure].fails_over
    assert b"canary" not in attempt.SerializeToString()
    assert (attempt.provider, attempt.model, attempt.http_status) == ("p", "m", 418)
    assert attempt.start_time.ToNanoseconds() == 1_700_000_000_250_000_000
    assert attempt.duration.ToMilliseconds() == 1500
    assert attempt.time_to_first_token.ToMilliseconds() == 750


def test_an_attempt_that_served_has_no_error():
    attempt = attempt_message(
        attempt_id="cmpl_1.0-1",
        candidate=CANDIDATE,
        hop=0,
        started_unix_s=0,
        duration_s=0.1,
        first_token_s=None,
    )

    assert not attempt.HasField("error")
    assert not attempt.retryable
    assert not attempt.HasField("time_to_first_token")
