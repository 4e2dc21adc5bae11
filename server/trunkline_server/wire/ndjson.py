"""Newline-delimited JSON: bytes in, lines out. What stands in a line is not looked at.

Source: https://github.com/ndjson/ndjson-spec
"""

from collections.abc import Sequence

from trunkline_server.wire.sse import MAX_LINE_BYTES, MalformedStream


class NDJSONDecoder:
    """One stream. A read may end anywhere, in the middle of a character or of a line end too."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """The lines that `chunk` completes, in order, without their ends. Blank ones are left out.

        Raises:
            MalformedStream: a line is longer than allowed.
        """
        end = chunk.rfind(b"\n")
        if end < 0:
            # Nothing ends here. The pieces of a long line are joined once, when it does.
            self._hold(chunk)
            return ()
        data = chunk[:end]
        if self._pieces:
            data = b"".join([*self._pieces, data])
            self._pieces.clear()
            self._pieces_bytes = 0
        if end + 1 < len(chunk):
            self._hold(chunk[end + 1 :])
        lines = [line for line in data.split(b"\n") if line and not line.isspace()]
        if len(data) > MAX_LINE_BYTES and any(len(line) > MAX_LINE_BYTES for line in lines):
            raise MalformedStream("a line is too long")
        return lines

    def finish(self) -> Sequence[bytes]:
        """What came after the last line end: a last line without one, or a piece of a line."""
        line = b"".join(self._pieces)
        self._pieces.clear()
        self._pieces_bytes = 0
        return () if not line or line.isspace() else (line,)

    def _hold(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._pieces_bytes += len(piece)
        if self._pieces_bytes > MAX_LINE_BYTES:
            raise MalformedStream("a line is too long")
