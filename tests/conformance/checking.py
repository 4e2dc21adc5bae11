"""Whether what a client told, and what the gateway saw of it, is what a case expects."""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from tests.conformance.cases import ITEMS, RPCS, Bounds, Case, ExpectedError, Sent
from tests.conformance.server import Call
from trunkline.v1.completion_pb2 import Completion

SHOWN_CHARS: Final = 2_000
SECONDS: Final = 0.001


def problems(case: Case, observed: Mapping[str, Any], calls: Sequence[Call]) -> list[str]:
    """What is wrong; empty where all is as expected."""
    if "crash" in observed:
        return [f"the runner could not do it: {observed['crash']}"]
    return [*_in_the_client(case, observed), *_at_the_gateway(case, calls)]


def _in_the_client(case: Case, observed: Mapping[str, Any]) -> Iterator[str]:
    expect = case.expect
    yield from _error(expect.error, observed.get("error"))
    for name in ("events", "texts", "text", "tool_calls"):
        wanted = getattr(expect, name)
        if wanted is not None and observed.get(name) != wanted:
            yield f"{name}: {_short(observed.get(name))} instead of {_short(wanted)}"
    if expect.event_counts is not None:
        counts = dict(Counter(observed.get("events", ())))
        if counts != expect.event_counts:
            yield f"events: {counts} instead of {expect.event_counts}"
    if expect.text_chars is not None and len(observed.get("text", "")) != expect.text_chars:
        yield f"text: {len(observed.get('text', ''))} characters instead of {expect.text_chars}"
    if expect.completion is not None:
        yield from _message(
            "completion", observed.get("completion"), ParseDict(expect.completion, Completion())
        )
    if expect.items is not None:
        kind = ITEMS[case.call["method"]]
        items = observed.get("items", ())
        if len(items) != len(expect.items):
            yield f"items: {len(items)} instead of {len(expect.items)}"
        for number, (item, wanted) in enumerate(zip(items, expect.items, strict=False)):
            yield from _message(f"items[{number}]", item, ParseDict(wanted, kind()))
    yield from _bounds("elapsed_s", expect.elapsed_s, observed.get("elapsed_s"))
    for name in ("live_bytes", "threads"):
        bounds: Bounds | None = getattr(expect, f"{name}_growth")
        if bounds is not None:
            before, after = observed.get(name, (0, float("nan")))
            yield from _bounds(f"{name} more", bounds, after - before)


def _error(wanted: ExpectedError | None, got: Mapping[str, Any] | None) -> Iterator[str]:
    if wanted is None:
        if got is not None:
            yield f"an error came: {_short(got)}"
        return
    if got is None:
        yield f"no error came instead of {wanted.family}"
        return
    families = [wanted.family] if isinstance(wanted.family, str) else wanted.family
    if got["family"] not in families:
        yield f"error: {_short(got)} instead of {wanted.family}"
    for name in (
        *("reason", "code", "message", "request_id", "provider", "retryable"),
        *("field_violations", "metadata"),
    ):
        value = getattr(wanted, name)
        if value is not None and got.get(name) != value:
            yield f"error.{name}: {got.get(name)!r} instead of {value!r}"
    told = got.get("retry_after_s")
    if wanted.has_retry_after is False and told is not None:
        yield f"error.retry_after_s: {told} where none was sent"
    if wanted.retry_after_s is not None and (
        told is None or abs(told - wanted.retry_after_s) > SECONDS
    ):
        yield f"error.retry_after_s: {told} instead of {wanted.retry_after_s}"


def _at_the_gateway(case: Case, calls: Sequence[Call]) -> Iterator[str]:
    expect = case.expect
    wanted = len(expect.sent) or None if expect.calls is None else expect.calls
    if wanted is not None and len(calls) != wanted:
        yield f"calls: {len(calls)} instead of {wanted}"
    for number, (sent, call) in enumerate(zip(expect.sent, calls, strict=False)):
        for problem in _sent(sent, call):
            yield f"sent[{number}].{problem}"
    for former, latter in pairwise(calls):
        if former.ended_at_s is not None:
            yield from _bounds("gaps_s", expect.gaps_s, latter.began_at_s - former.ended_at_s)
    if expect.told is not None and calls:
        yield from _bounds("told", expect.told, calls[-1].told)


def _sent(sent: Sent, call: Call) -> Iterator[str]:
    kind = RPCS[call.rpc][0]
    request = kind.FromString(call.request)
    if sent.request is not None:
        wanted = ParseDict(sent.request, kind())
        if request != wanted:
            yield f"request: {_short(MessageToDict(request))} instead of {_short(sent.request)}"
    if sent.request_chars is not None:
        chars = len(MessageToDict(request)["spec"]["messages"][0]["parts"][0]["text"])
        if chars != sent.request_chars:
            yield f"request: {chars} characters instead of {sent.request_chars}"
    for name, value in sent.headers.items():
        if call.headers.get(name) != value:
            # Some of them are keys, if only those of cases.
            yield f"headers: {name} is not as it should be"
    for name in sent.absent_headers:
        if name in call.headers:
            yield f"headers: {name} was sent"
    yield from _bounds("time_remaining_s", sent.time_remaining_s, call.time_remaining_s)


def _bounds(name: str, bounds: Bounds | None, value: float | None) -> Iterator[str]:
    if bounds is not None and (value is None or not bounds.hold(value)):
        yield f"{name}: {value} is not from {bounds.at_least:g} to {bounds.at_most:g}"


def _message(name: str, encoded: str | None, wanted: Message) -> Iterator[str]:
    if encoded is None:
        yield f"{name}: there is none"
        return
    got = type(wanted).FromString(base64.b64decode(encoded))
    if got != wanted:
        yield f"{name}: {_short(MessageToDict(got))} instead of {_short(MessageToDict(wanted))}"


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]}..."
