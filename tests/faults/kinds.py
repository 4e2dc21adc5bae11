"""The one table of fault kinds: what each does to a request, and what the gateway must make of it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

from tests.faults.upstreams import JSON_HEAD, STREAM_HEAD, Ask, Fin, Step, complete, whole
from tests.faults.wires import Counts, pieces, said
from tests.support.upstream import END, Hang, Pause, Reset, chunk, head

FAULTY: Final = "faulty"  # The provider that fails, and
HEALTHY: Final = "healthy"  # the one that answers after it.

SILENCE_S: Final = 0.3  # As long as silence is borne where it is the fault.

UNREACHABLE: Final = "PROVIDER_UNREACHABLE"
LOST: Final = "PROVIDER_CONNECTION_LOST"
DOWN: Final = "PROVIDER_UNAVAILABLE"
EXHAUSTED: Final = "PROVIDER_QUOTA_EXHAUSTED"
THROTTLED: Final = "PROVIDER_RATE_LIMITED"
SLOW: Final = "UPSTREAM_TIMEOUT"
PROTOCOL: Final = "UPSTREAM_PROTOCOL_ERROR"
INTERRUPTED: Final = "STREAM_INTERRUPTED"


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        name: its row.
        script: what the faulty upstream does with a request.
        reasons: of these, one is told for the failed attempt. Empty: the upstream misbehaves in a way that harms
            nothing, and its own answer is the right one.
        listens: how the faulty upstream can be reached: `requests`, `resets`, `silence`, `nobody`, `hole`, or
            `bad certificate`.
        patience_s: for the first token and between tokens, where only a timer ends the fault.
        after_content: streams fail when content has been sent.
    """

    name: str
    script: Callable[[Ask], Iterable[Step]] = lambda ask: ()
    reasons: frozenset[str] = frozenset()
    listens: str = "requests"
    patience_s: float | None = None
    after_content: bool = False


def _opened(ask: Ask) -> bytes:
    """The head, and what comes before content."""
    return STREAM_HEAD + chunk(ask.wire.opening) if ask.is_stream else JSON_HEAD


def _begun(ask: Ask) -> bytes:
    """The head and the first half of an answer."""
    text = said(ask.mark, FAULTY)
    if not ask.is_stream:
        body = ask.wire.whole(text, Counts())
        return JSON_HEAD + chunk(body[: len(body) // 2])
    half = pieces(text)[:4]
    return _opened(ask) + b"".join(chunk(ask.wire.text(piece)) for piece in half)


def _head_then(step: Step) -> Callable[[Ask], list[Step]]:
    return lambda ask: [STREAM_HEAD if ask.is_stream else JSON_HEAD, step]


def _opened_then(*steps: Step) -> Callable[[Ask], list[Step]]:
    return lambda ask: [_opened(ask), *steps]


def _begun_then(*steps: Step) -> Callable[[Ask], list[Step]]:
    return lambda ask: [_begun(ask), *steps]


def _reset_in_chunk(ask: Ask) -> list[Step]:
    event = ask.wire.text(said(ask.mark, FAULTY))
    return [_opened(ask) + b"%x\r\n%b" % (len(event), event[: len(event) // 2]), Reset()]


def _trickle(ask: Ask) -> Iterator[Step]:
    yield STREAM_HEAD if ask.is_stream else JSON_HEAD
    for byte in ask.wire.text(said(ask.mark, FAULTY)):
        yield chunk(bytes([byte]))
        yield Pause(1)


def _pings(ask: Ask) -> Iterator[Step]:
    yield _opened(ask)
    while True:
        yield chunk(ask.wire.ping if ask.is_stream else b" ")
        yield Pause(0.05)


def _refused(status: int, *headers: str) -> Callable[[Ask], list[Step]]:
    return lambda ask: whole(ask.wire.refusal(status), status, *headers)


def _limited_until(ask: Ask) -> list[Step]:
    until = format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)
    return whole(ask.wire.refusal(429), 429, f"retry-after: {until}")


def _error_inside(ask: Ask) -> list[Step]:
    if ask.is_stream:
        return [_opened(ask) + chunk(ask.wire.error) + END]
    return whole(ask.wire.refusal(500))


def _malformed(ask: Ask) -> list[Step]:
    if ask.is_stream:
        return [_opened(ask) + chunk('data: {"choices": [{"delta"\n\n') + END]
    return whole(b'{"choices": [{"delta"')


def _html(ask: Ask) -> list[Step]:
    return [head(200, "text/html; charset=utf-8") + chunk("<html>Welcome</html>") + END]


def _html_inside(ask: Ask) -> list[Step]:
    """HTML under the name of what was asked for."""
    start = STREAM_HEAD if ask.is_stream else JSON_HEAD
    return [start + chunk("<html>Welcome</html>\n\n") + END]


BREATH: Final = Pause(0.05)  # So that what follows comes in another read.
BLOCK: Final = chunk(b"x" * 128 * 1024)


def _endless_line(ask: Ask) -> Iterator[Step]:
    yield STREAM_HEAD + chunk("data: ")
    for _ in range(64):
        yield BLOCK
    yield Hang()


def _endless_line_later(ask: Ask) -> Iterator[Step]:
    yield _begun(ask) + chunk("data: ")
    for _ in range(64):
        yield BLOCK
    yield Hang()


def _end_twice(ask: Ask) -> list[Step]:
    """The last event that holds anything comes again, as it was."""
    text = said(ask.mark, FAULTY)
    if not ask.is_stream:
        return complete(ask, FAULTY)
    *first, ending = ask.wire.stream(text)
    *before, last = (block + b"\n\n" for block in ending.split(b"\n\n") if block)
    return [STREAM_HEAD + b"".join(map(chunk, [*first, *before, last, last])) + END]


def _finish_twice(ask: Ask) -> list[Step]:
    """What ends the answer comes again, all of it but the text."""
    if not ask.is_stream:
        return complete(ask, FAULTY)
    events = [*ask.wire.stream(said(ask.mark, FAULTY)), ask.wire.ending("", Counts())]
    return [STREAM_HEAD + b"".join(map(chunk, events)) + END]


def _ends_with(counts: Counts | None) -> Callable[[Ask], list[Step]]:
    return lambda ask: complete(ask, FAULTY, counts)


def _any_of(*reasons: str) -> frozenset[str]:
    return frozenset(reasons)


KINDS: Final[tuple[Kind, ...]] = (
    # The connection
    Kind("connection refused", reasons=_any_of(UNREACHABLE), listens="nobody"),
    Kind("SYN into a black hole", reasons=_any_of(SLOW), listens="hole", patience_s=SILENCE_S),
    Kind("accept, then RST", reasons=_any_of(UNREACHABLE, LOST), listens="resets"),
    Kind("TLS: bad certificate", reasons=_any_of(UNREACHABLE), listens="bad certificate"),
    Kind("TLS: stalled handshake", reasons=_any_of(SLOW), listens="silence", patience_s=SILENCE_S),
    Kind("RST instead of headers", lambda ask: [Reset()], _any_of(LOST)),
    Kind("FIN instead of headers", lambda ask: [Fin()], _any_of(LOST)),
    Kind("RST after headers", _head_then(Reset()), _any_of(LOST)),
    Kind("RST in the middle of a chunk", _reset_in_chunk, _any_of(LOST)),
    Kind("FIN without a terminator", _opened_then(Fin()), _any_of(LOST)),
    Kind("end without an answer", _opened_then(END), _any_of(LOST, PROTOCOL)),
    # Silence
    Kind("stall before headers", lambda ask: [Hang()], _any_of(SLOW), patience_s=SILENCE_S),
    Kind("stall after headers", _head_then(Hang()), _any_of(SLOW), patience_s=SILENCE_S),
    Kind("stall after the opening", _opened_then(Hang()), _any_of(SLOW), patience_s=SILENCE_S),
    Kind("trickle of 1 byte a second", _trickle, _any_of(SLOW), patience_s=SILENCE_S),
    Kind("pings only", _pings, _any_of(SLOW), patience_s=SILENCE_S),
    # Statuses
    Kind("429, Retry-After in seconds", _refused(429, "retry-after: 2"), _any_of(THROTTLED)),
    Kind("429, Retry-After as a date", _limited_until, _any_of(THROTTLED)),
    Kind("429, Retry-After huge", _refused(429, f"retry-after: {10**30}"), _any_of(THROTTLED)),
    Kind("429, Retry-After negative", _refused(429, "retry-after: -5"), _any_of(THROTTLED)),
    # Anthropic's means that the money is spent.
    Kind("429, no Retry-After", _refused(429), _any_of(THROTTLED, EXHAUSTED)),
    *(
        Kind(str(status), _refused(status), _any_of(DOWN))
        for status in (500, 501, 502, 503, 504, 520, 521, 522, 523, 524, 529)
    ),
    # Bodies
    Kind("error event inside a 200", _error_inside, _any_of(DOWN, PROTOCOL)),
    Kind("malformed JSON", _malformed, _any_of(PROTOCOL)),
    Kind("HTML in a 200", _html, _any_of(PROTOCOL)),
    Kind("HTML in a 200, typed as asked for", _html_inside, _any_of(PROTOCOL, LOST)),
    Kind("a line without end", _endless_line, _any_of(PROTOCOL), patience_s=10),
    Kind("the final chunk twice", _finish_twice),
    Kind("the final chunk twice, its text too", _end_twice),
    Kind("usage missing", _ends_with(None)),
    Kind("usage zero", _ends_with(Counts(0, 0))),
    Kind("usage absurd: negative", _ends_with(Counts(-9, -12))),
    Kind("usage absurd: 10**30", _ends_with(Counts(10**30, 10**30))),
    Kind("usage absurd: no number", _ends_with(Counts("nine", [12]))),
    # After content
    Kind(
        "RST after N tokens", _begun_then(Reset()), _any_of(INTERRUPTED, LOST), after_content=True
    ),
    Kind("FIN after N tokens", _begun_then(Fin()), _any_of(INTERRUPTED, LOST), after_content=True),
    Kind(
        "end after N tokens",
        _begun_then(END),
        _any_of(INTERRUPTED, PROTOCOL),
        after_content=True,
    ),
    Kind(
        "stall after N tokens",
        _begun_then(Hang()),
        _any_of(INTERRUPTED, SLOW),
        patience_s=SILENCE_S,
        after_content=True,
    ),
    Kind(
        "error event after N tokens",
        lambda ask: [_begun(ask), BREATH, chunk(ask.wire.error) + END],
        _any_of(DOWN, PROTOCOL),
        after_content=True,
    ),
    Kind(
        "malformed JSON after N tokens",
        lambda ask: [_begun(ask), BREATH, chunk('data: {"choices": [{"delta"\n\n') + END],
        _any_of(PROTOCOL),
        after_content=True,
    ),
    Kind(
        "a line without end after N tokens",
        _endless_line_later,
        _any_of(PROTOCOL),
        patience_s=10,
        after_content=True,
    ),
)
