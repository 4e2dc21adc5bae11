"""How long to stay away, in each of the ways that providers say it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.wire.retry_after import (
    MAX_RESET_S,
    MAX_S,
    duration_s,
    reset_s,
    retry_after_s,
)

NOW_S = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("20", 20.0),
        ("0", 0.0),
        ("1.5", 1.5),
        (" 20 ", 20.0),
        ("1.57s", 1.57),
        ("6m0s", 360.0),
        ("350ms", 0.35),
        ("1h", 3600.0),
        ("1m", 60.0),
        ("3599", 3599.0),
        ("3601", MAX_S),
        ("2d", MAX_S),
        ("9" * 400, None),  # More than a float can hold.
        ("9" * 300, MAX_S),
        ("-1", None),
        ("-5s", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("", None),
        ("soon", None),
        ("5 minutes", None),
        ("1s2m", None),
        ("s", None),
        ("1" * 65 + "s", None),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:12:50 GMT", 0.0),
        ("Tue, 14 Nov 2023 23:13:50 +0100", 30.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", 30.0),
        ("Tue Nov 14 22:13:50 2023", 30.0),
        ("Tue, 14 Nov 2083 22:13:50 GMT", MAX_S),
        ("Tue, 99 Nov 2023 99:99:99 GMT", None),
        ("Tue, 14 Nov 99999999 22:13:50 GMT", None),
    ],
)
def test_a_wait_is_read_however_it_is_said(monkeypatch, value, seconds):
    monkeypatch.setenv("TZ", "Asia/Tokyo")  # A date without a zone is UTC wherever we run.
    time.tzset()
    try:
        found = retry_after_s({"retry-after": value}, NOW_S)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "20"}, 1.5),
        ({"retry-after-ms": "-5", "retry-after": "20"}, 20.0),
        ({"retry-after-ms": "soon", "retry-after": "20"}, 20.0),
        ({"retry-after-ms": "99999999999"}, MAX_S),
        ({}, None),
    ],
)
def test_milliseconds_win_where_they_are_usable(headers, seconds):
    assert retry_after_s(headers, NOW_S) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1h2m3s", 3600.0), ("2m3.5s", 123.5), ("1s500ms", 1.5), ("7", 7.0), ("now", None)],
)
def test_durations_are_read_by_unit(value, seconds):
    assert duration_s(value) == seconds


@given(st.text(max_size=80))
def test_no_text_makes_it_raise_or_wait_for_more_than_an_hour(value):
    for headers in ({"retry-after": value}, {"retry-after-ms": value}):
        found = retry_after_s(headers, NOW_S)

        assert found is None or 0 <= found <= MAX_S


ANTHROPIC = "anthropic-ratelimit-"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, MAX_RESET_S),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None),
        ({"x-ratelimit-remaining-tokens": "0"}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "120ms",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "3s",
            },
            3.0,
        ),
        (
            {
                f"{ANTHROPIC}input-tokens-remaining": "0",
                f"{ANTHROPIC}input-tokens-reset": "2023-11-14T22:13:25Z",
            },
            5.0,
        ),
        (
            {
                f"{ANTHROPIC}requests-remaining": "0",
                f"{ANTHROPIC}requests-reset": "2001-01-01T00:00:00Z",
            },
            0.0,
        ),
        (
            {
                f"{ANTHROPIC}requests-remaining": "-1",
                f"{ANTHROPIC}requests-reset": "9999-12-31T23:59:59+00:00",
            },
            None,
        ),
    ],
)
def test_limits_that_are_used_up_say_when_they_are_full_again(headers, seconds):
    found = reset_s(headers, NOW_S)

    assert found == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=80))
def test_no_reset_makes_it_raise_or_wait_for_more_than_a_minute(value):
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": value}
    found = reset_s(headers, NOW_S)

    assert found is None or 0 <= found <= MAX_RESET_S
