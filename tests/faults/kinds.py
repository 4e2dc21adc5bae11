"""The one table of fault kinds: what each does to a request, and what the gateway must make of it.

What a provider says wrong is scripted. What the network does to a right answer is done by the proxy before a provider
that is well, at a place of the answer's bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final, Literal

from tests.faults.proxy import Ending, Fault, Fin, Hole, Say, Trickle
from tests.faults.upstreams import JSON_HEAD, Ask, Layout, Step, complete, head_of, layout, whole
from tests.faults.wires import Counts, pieces, said
from tests.support.upstream import END, Hang, Pause, Reset, chunk, head

FAULTY: Final = "faulty"  # The provider that fails, and
HEALTHY: Final = "healthy"  # the one that answers after it.

SILENCE_S: Final = 0.2  # As long as silence is borne where it is the fault.

UNREACHABLE: Final = "PROVIDER_UNREACHABLE"
LOST: Final = "PROVIDER_CONNECTION_LOST"
DOWN: Final = "PROVIDER_UNAVAILABLE"
EXHAUSTED: Final = "PROVIDER_QUOTA_EXHAUSTED"
THROTTLED: Final = "PROVIDER_RATE_LIMITED"
SLOW: Final = "UPSTREAM_TIMEOUT"
PROTOCOL: Final = "UPSTREAM_PROTOCOL_ERROR"
INTERRUPTED: Final = "STREAM_INTERRUPTED"
INCAPABLE: Final = "CAPABILITY_UNSUPPORTED"  # What Cohere's 501 means.


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        name: its row.
        script: what the faulty provider answers; None: it is well.
        network: what the proxy does to its answer, if anything.
        on_accept: what the proxy does with a connection before a byte has passed, if anything.
        listens: whether anybody is there, `nobody` is, or SYNs fall into a `hole`.
        tls: the provider speaks TLS, with a certificate that nobody vouches for.
        reasons: of these, one is told for the failed attempt. Empty: the upstream misbehaves in a way that harms
            nothing, and its own answer is the right one.
        patience_s: for the first token and between tokens, where only a timer ends the fault.
        after_content: streams fail when content has been sent.
    """

    name: str
    script: Callable[[Ask], Iterable[Step]] | None = None
    reasons: frozenset[str] = frozenset()
    network: Callable[[Ask], Fault] | None = None
    on_accept: Ending | None = None
    listens: Literal["somebody", "nobody", "hole"] = "somebody"
    tls: bool = False
    patience_s: float | None = None
    after_content: bool = False

    @property
    def gets_requests(self) -> bool:
        """Does the provider behind get to read what is asked?"""
        return self.listens == "somebody" and self.on_accept is None and not self.tls


def _opened(ask: Ask) -> bytes:
    """The head, and what comes before content."""
    return head_of(ask) + (chunk(ask.wire.opening) if ask.is_stream else b"")


def _begun(ask: Ask) -> bytes:
    """The head and the first half of an answer."""
    text = said(ask.mark, FAULTY)
    if not ask.is_stream:
        body = ask.wire.whole(text, Counts())
        return JSON_HEAD + chunk(body[: len(body) // 2])
    half = pieces(text)[: len(pieces(text)) // 2]
    return _opened(ask) + b"".join(chunk(ask.wire.text(piece)) for piece in half)


def _pings(ask: Ask) -> Iterator[Step]:
    yield _opened(ask)
    while True:
        yield chunk(ask.wire.ping if ask.is_stream else b" ")
        yield Pause(0.05)


def _refused(status: int, *headers: str) -> Callable[[Ask], Iterable[Step]]:
    return lambda ask: whole(ask.wire.refusal(status), status, *headers)


def _refused_somehow(ask: Ask) -> Iterable[Step]:
    """With the status that the number in the mark stands for, so that a hundred requests meet all of them."""
    status = 500 + int(ask.mark.split("-")[1]) * 7 % 100
    return whole(ask.wire.refusal(status), status)


def _limited_until(ask: Ask) -> Iterable[Step]:
    until = format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)
    return whole(ask.wire.refusal(429), 429, f"retry-after: {until}")


def _error_inside(ask: Ask) -> Iterable[Step]:
    if ask.is_stream:
        return [_opened(ask) + chunk(ask.wire.error) + END]
    return whole(ask.wire.refusal(500))


def _malformed(ask: Ask) -> Iterable[Step]:
    if ask.is_stream:
        return [_opened(ask) + chunk(ask.wire.malformed) + END]
    return whole(b'{"choices": [{"delta"')


def _html(ask: Ask) -> list[Step]:
    return [head(200, "text/html; charset=utf-8") + chunk("<html>Welcome</html>") + END]


def _html_inside(ask: Ask) -> list[Step]:
    """HTML under the name of what was asked for."""
    return [head_of(ask) + chunk("<html>Welcome</html>\n\n") + END]


BREATH: Final = Pause(0.05)  # So that what follows comes in another read.
BLOCK: Final = chunk(b"x" * 128 * 1024)


def _endless(start: Callable[[Ask], bytes]) -> Callable[[Ask], Iterator[Step]]:
    def script(ask: Ask) -> Iterator[Step]:
        yield start(ask) + chunk(ask.wire.endless)
        for _ in range(64):
            yield BLOCK
        yield Hang()

    return script


def _end_twice(ask: Ask) -> list[Step]:
    """The last event that holds anything comes again, as it was."""
    if not ask.is_stream:
        return complete(ask, FAULTY)
    events = ask.wire.stream(said(ask.mark, FAULTY))
    return [head_of(ask) + b"".join(map(chunk, [*events, events[-1]])) + END]


def _finish_twice(ask: Ask) -> list[Step]:
    """What ends the answer comes again, all of it but the text."""
    if not ask.is_stream:
        return complete(ask, FAULTY)
    events = [*ask.wire.stream(said(ask.mark, FAULTY)), *ask.wire.ending("", Counts())]
    return [head_of(ask) + b"".join(map(chunk, events)) + END]


def _ends_with(counts: Counts | None) -> Callable[[Ask], list[Step]]:
    return lambda ask: complete(ask, FAULTY, counts)


def _any_of(*reasons: str) -> frozenset[str]:
    return frozenset(reasons)


def _at(
    ending: Ending, place: Callable[[Layout], int], after_s: float = 0.0
) -> Callable[[Ask], Fault]:
    return lambda ask: Fault(place(layout(ask, FAULTY)), ending, after_s)


def _silent(name: str, **how: Any) -> Kind:
    """Only a timer ends it."""
    return Kind(name, reasons=_any_of(SLOW), patience_s=SILENCE_S, **how)


def _later(name: str, *reasons: str, **how: Any) -> Kind:
    """After content."""
    return Kind(name, reasons=_any_of(INTERRUPTED, *reasons), after_content=True, **how)


START: Final = _at(Reset(), lambda answer: 0)
NOT_TLS: Final = Say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
IN_HANDSHAKE: Final = 100  # Bytes of the server's first message, which has more than a thousand.

BY_PHASE: Final[Mapping[str, tuple[Kind, ...]]] = {
    "connecting": (
        Kind("connection refused", reasons=_any_of(UNREACHABLE), listens="nobody"),
        _silent("SYN into a black hole", listens="hole"),
        Kind("accept, then RST", reasons=_any_of(UNREACHABLE, LOST), on_accept=Reset()),
        _silent("accept, then a black hole", on_accept=Hole()),
        Kind("TLS: bad certificate", reasons=_any_of(UNREACHABLE), tls=True),
        Kind("TLS: not spoken", reasons=_any_of(UNREACHABLE), tls=True, on_accept=NOT_TLS),
        Kind(
            "TLS: RST in the handshake",
            reasons=_any_of(UNREACHABLE),
            tls=True,
            network=_at(Reset(), lambda answer: IN_HANDSHAKE),
        ),
        _silent("TLS: stalled handshake", tls=True, on_accept=Hang()),
        _silent(
            "TLS: handshake of 50 bytes a second",
            tls=True,
            network=_at(Trickle(0.02), lambda answer: 0),
        ),
    ),
    "before headers": (
        Kind("RST instead of headers", reasons=_any_of(LOST), network=START),
        Kind(
            "FIN instead of headers",
            reasons=_any_of(LOST),
            network=_at(Fin(), lambda answer: 0),
        ),
        Kind(
            "RST in the middle of headers",
            reasons=_any_of(LOST),
            network=_at(Reset(), lambda answer: answer.head // 2),
        ),
        _silent("stall before headers", network=_at(Hang(), lambda answer: 0)),
        _silent("black hole before headers", network=_at(Hole(), lambda answer: 0)),
    ),
    "status": (
        Kind("429, Retry-After in seconds", _refused(429, "retry-after: 2"), _any_of(THROTTLED)),
        Kind("429, Retry-After as a date", _limited_until, _any_of(THROTTLED)),
        Kind(
            "429, Retry-After as a duration",
            _refused(429, "retry-after: 1m30s"),
            _any_of(THROTTLED),
        ),
        Kind("429, Retry-After huge", _refused(429, f"retry-after: {10**30}"), _any_of(THROTTLED)),
        Kind("429, Retry-After negative", _refused(429, "retry-after: -5"), _any_of(THROTTLED)),
        # Anthropic's means that the money is spent.
        Kind("429, no Retry-After", _refused(429), _any_of(THROTTLED, EXHAUSTED)),
        *(
            Kind(str(status), _refused(status), _any_of(DOWN))
            for status in (500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
        ),
        Kind("501", _refused(501), _any_of(DOWN, INCAPABLE)),
        Kind("500 to 599, each in turn", _refused_somehow, _any_of(DOWN, INCAPABLE)),
    ),
    "before content": (
        Kind(
            "RST after headers",
            reasons=_any_of(LOST),
            network=_at(Reset(), lambda answer: answer.head),
        ),
        Kind(
            "RST in the middle of a chunk",
            reasons=_any_of(LOST),
            network=_at(Reset(), lambda answer: answer.in_chunk),
        ),
        Kind(
            "FIN without a terminator",
            reasons=_any_of(LOST),
            network=_at(Fin(), lambda answer: answer.opened),
        ),
        Kind("end without an answer", lambda ask: [_opened(ask) + END], _any_of(LOST, PROTOCOL)),
        _silent("stall after headers", network=_at(Hang(), lambda answer: answer.head)),
        _silent("stall after the opening", network=_at(Hang(), lambda answer: answer.opened)),
        _silent("trickle of 1 byte a second", network=_at(Trickle(1), lambda answer: answer.head)),
        _silent("pings only", script=_pings),
        Kind("error event inside a 200", _error_inside, _any_of(DOWN, PROTOCOL)),
        Kind("malformed JSON", _malformed, _any_of(PROTOCOL)),
        Kind("HTML in a 200", _html, _any_of(PROTOCOL)),
        Kind("HTML in a 200, typed as asked for", _html_inside, _any_of(PROTOCOL, LOST)),
        Kind("a line without end", _endless(head_of), _any_of(PROTOCOL), patience_s=10),
    ),
    "after content": (
        _later(
            "RST after N tokens",
            LOST,
            network=_at(Reset(), lambda answer: answer.begun, BREATH.seconds),
        ),
        _later(
            "FIN after N tokens",
            LOST,
            network=_at(Fin(), lambda answer: answer.begun, BREATH.seconds),
        ),
        _later("end after N tokens", PROTOCOL, script=lambda ask: [_begun(ask), BREATH, END]),
        _later(
            "stall after N tokens",
            SLOW,
            network=_at(Hang(), lambda answer: answer.begun),
            patience_s=SILENCE_S,
        ),
        _later(
            "black hole after N tokens",
            SLOW,
            network=_at(Hole(), lambda answer: answer.begun),
            patience_s=SILENCE_S,
        ),
        _later(
            "1 byte a second after N tokens",
            SLOW,
            network=_at(Trickle(1), lambda answer: answer.begun),
            patience_s=SILENCE_S,
        ),
        _later(
            "error event after N tokens",
            DOWN,
            PROTOCOL,
            script=lambda ask: [_begun(ask), BREATH, chunk(ask.wire.error) + END],
        ),
        _later(
            "malformed JSON after N tokens",
            PROTOCOL,
            script=lambda ask: [_begun(ask), BREATH, chunk(ask.wire.malformed) + END],
        ),
        _later(
            "a line without end after N tokens", PROTOCOL, script=_endless(_begun), patience_s=10
        ),
    ),
    "at the end": (
        Kind("the final chunk twice", _finish_twice),
        Kind("the final chunk twice, its text too", _end_twice),
        Kind("usage missing", _ends_with(None)),
        Kind("usage zero", _ends_with(Counts(0, 0))),
        Kind("usage absurd: negative", _ends_with(Counts(-9, -12))),
        Kind("usage absurd: 10**30", _ends_with(Counts(10**30, 10**30))),
        Kind("usage absurd: no number", _ends_with(Counts("nine", [12]))),
    ),
}

KINDS: Final = tuple(kind for kinds in BY_PHASE.values() for kind in kinds)
