"""Server-sent events: bytes in, `data` payloads out.

Event names are passed over: every dialect that is read here repeats the name inside its JSON.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from collections.abc import Sequence

MAX_LINE_BYTES = 1024 * 1024
MAX_EVENT_BYTES = 4 * 1024 * 1024
BOM = b"\xef\xbb\xbf"


class MalformedStream(ValueError):
    """The bytes can't be what they should be."""


class SSEDecoder:
    """One stream. A read may end anywhere, in the middle of a character or of a line end too."""

    def __init__(
        self, *, max_line_bytes: int = MAX_LINE_BYTES, max_event_bytes: int = MAX_EVENT_BYTES
    ) -> None:
        self._max_line_bytes = max_line_bytes
        self._max_event_bytes = max_event_bytes
        self._rest = b""
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._started = False
        self._held_cr = False

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """The payloads of the events that `chunk` completes, in order.

        Raises:
            MalformedStream: a line or an event is longer than allowed.
        """
        if not self._started:
            start = self._rest + chunk
            if len(start) < len(BOM) and BOM.startswith(start):
                self._rest = start
                return ()
            self._started = True
            self._rest = b""
            chunk = start.removeprefix(BOM)
        if self._held_cr or b"\r" in chunk:
            chunk = self._normalise(chunk)
        if b"\n" not in chunk:
            # Nothing ends here. The pieces of a long line are joined once, when it does.
            self._hold(chunk)
            return ()
        if self._pieces:
            data = b"".join([self._rest, *self._pieces, chunk])
            self._pieces.clear()
        else:
            data = self._rest + chunk if self._rest else chunk
        end = data.rfind(b"\n\n", max(0, len(self._rest) - 1))
        if end < 0:
            self._keep(data)
            return ()
        self._keep(data[end + 2 :])
        if data.startswith(b"data: "):
            payloads = data[6:end].split(b"\n\ndata: ")
            if data.count(b"\n", 0, end) == 2 * (len(payloads) - 1):
                return payloads  # All events are one line each, as nearly everybody writes them.
        payloads = []
        for block in data[:end].split(b"\n\n"):
            if block.startswith(b"data: ") and b"\n" not in block:
                payloads.append(block[6:])
            elif (payload := _payload(block)) is not None:
                payloads.append(payload)
        return payloads

    def finish(self) -> Sequence[bytes]:
        """The payload of a last event that ended with a line but without the empty one after it."""
        block, self._rest = b"".join([self._rest, *self._pieces]), b""
        self._pieces.clear()
        if self._held_cr:  # No LF came after it, so it was a line end by itself.
            block, self._held_cr = block + b"\n", False
        if not block.endswith(b"\n"):
            return ()
        payload = _payload(block)
        return () if payload is None else (payload,)

    def _normalise(self, chunk: bytes) -> bytes:
        if self._held_cr:
            chunk = b"\r" + chunk
        # A CR at the end may be half of a CRLF, so it waits for what comes next.
        self._held_cr = chunk.endswith(b"\r")
        if self._held_cr:
            chunk = chunk[:-1]
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._pieces_bytes += len(piece)
        if (
            self._pieces_bytes > self._max_line_bytes
            or self._pieces_bytes + len(self._rest) > self._max_event_bytes
        ):
            raise MalformedStream("an event is too long")

    def _keep(self, rest: bytes) -> None:
        self._pieces_bytes = 0
        if len(rest) > self._max_line_bytes and (
            len(rest) > self._max_event_bytes
            or len(rest) - rest.rfind(b"\n") > self._max_line_bytes
        ):
            raise MalformedStream("an event is too long")
        self._rest = rest


def _payload(block: bytes) -> bytes | None:
    lines = []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None
