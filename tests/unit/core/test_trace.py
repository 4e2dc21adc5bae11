"""W3C trace context, read and passed on."""

import pytest

from trunkline_server.core.trace import NO_TRACE, TraceContext, child_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SPAN = "1111111111111111"
GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (GOOD, "01"),
        (f"00-{TRACE}-{PARENT}-00", "00"),
        (f"01-{TRACE}-{PARENT}-01", "01"),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", "01"),
    ],
    ids=["sampled", "not sampled", "a later version", "a later version with more fields"],
)
def test_a_good_trace_goes_on_with_our_span(traceparent, flags):
    found = child_of(traceparent, "vendor=x,other=y", SPAN)

    assert found == TraceContext(TRACE, f"00-{TRACE}-{SPAN}-{flags}", "vendor=x,other=y")


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        GOOD.upper(),
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}0-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"{GOOD}-more",
        f"{GOOD}\n",
        f" {GOOD}",
        f"00-{TRACE[:-1]}g-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01more",
    ],
)
def test_a_bad_trace_is_as_good_as_none(traceparent):
    assert child_of(traceparent, "vendor=x", SPAN) == NO_TRACE


@pytest.mark.parametrize("tracestate", ["v=" + "x" * 511, "v=é", "v=a\nb", "v=\x00"])
def test_a_bad_trace_state_is_left_out(tracestate):
    found = child_of(GOOD, tracestate, SPAN)

    assert found == TraceContext(TRACE, f"00-{TRACE}-{SPAN}-01", "")


def test_a_trace_state_of_512_characters_is_kept():
    state = "v=" + "x" * 510

    assert child_of(GOOD, state, SPAN).tracestate == state
