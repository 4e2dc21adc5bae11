"""W3C trace context: read it, and pass it on with a span of our own.

Source: https://www.w3.org/TR/trace-context/#traceparent-header
"""

import re
from dataclasses import dataclass
from typing import Final

MAX_TRACESTATE_CHARS: Final = 512
_TRACEPARENT: Final = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z"
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Empty strings where there is no trace."""

    trace_id: str = ""
    traceparent: str = ""
    tracestate: str = ""


NO_TRACE: Final = TraceContext()


def child_of(traceparent: str, tracestate: str, span_id: str) -> TraceContext:
    """The context for what this request calls.

    Args:
        traceparent, tracestate: as they came; an invalid traceparent makes it as if neither had.
        span_id: 16 hexadecimal digits of our own.
    """
    match = _TRACEPARENT.match(traceparent)
    if match is None:
        return NO_TRACE
    version, trace_id, parent_id, flags, rest = match.groups()
    if (
        version == "ff"
        or (version == "00" and rest)
        or not int(trace_id, 16)
        or not int(parent_id, 16)
    ):
        return NO_TRACE
    state = (
        tracestate
        if len(tracestate) <= MAX_TRACESTATE_CHARS
        and tracestate.isascii()
        and tracestate.isprintable()
        else ""
    )
    return TraceContext(trace_id, f"00-{trace_id}-{span_id}-{flags}", state)
