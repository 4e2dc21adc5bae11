"""Speechify's versions, whatever comes as one."""

import re
from datetime import date
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.edges.rest.http import Refused, Request
from trunkline_server.edges.rest.waymark import read_version

CHAT: Final = "/v1/chat/completions"


@given(st.dates())
def test_every_date_is_a_version(day):
    request = Request("POST", CHAT, [(b"speechify-version", day.isoformat().encode())], b"", None)  # type: ignore[arg-type]

    read_version(request)

    assert request.echoed == [(b"speechify-version", day.isoformat().encode())]


@given(st.binary(max_size=12))
def test_whatever_comes_as_a_version_is_a_date_or_refused(value):
    request = Request("POST", CHAT, [(b"speechify-version", value)], b"", None)  # type: ignore[arg-type]

    try:
        read_version(request)
    except Refused as error:
        reason = error.refusal.reason
    else:
        reason = ""

    echoed = [] if reason else [(b"speechify-version", value.strip())]
    assert request.echoed == echoed
    assert reason in ("", "INVALID_API_VERSION")
    assert bool(reason) != bool(
        re.fullmatch(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}", value.strip()) and is_day(value)
    )


def is_day(value: bytes) -> bool:
    """Is there such a day?"""
    year, month, day = (int(part) for part in value.strip().split(b"-"))
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
