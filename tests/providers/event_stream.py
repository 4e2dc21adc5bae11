"""Writes AWS event streams from JSON lines, so that a recording can be read by people too.

    python -m tests.providers.event_stream

makes each `tests/recordings/bedrock/*.eventstream` anew from the `.jsonl` beside it. A line is the name of an event and
its payload. A name that ends in `Exception` is an exception; `cut` ends the stream inside the message before it.
"""

import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

TYPE: Final = "application/vnd.amazon.eventstream"
FOLDER: Final = Path(__file__).parents[1] / "recordings" / "bedrock"
CUT_BYTES: Final = 20


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message. All headers are text, as this API's are."""
    packed = b"".join(
        struct.pack(">B", len(name))
        + name.encode()
        + struct.pack(">BH", 7, len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    lengths = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + packed + payload
    return message + struct.pack(">I", zlib.crc32(message))


def event(name: str, payload: Any) -> bytes:
    """One event or exception, with the headers of the real ones."""
    is_exception = name.endswith("Exception")
    headers = {
        ":exception-type" if is_exception else ":event-type": name,
        ":content-type": "application/json",
        ":message-type": "exception" if is_exception else "event",
    }
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return frame(headers, text.encode())


def of_each_kind(payload: bytes) -> bytes:
    """Bytes that may be anything as the payload of one event of each kind."""
    kinds = [{":message-type": "event", ":event-type": name} for name in KINDS]
    kinds.append({":message-type": "exception", ":exception-type": "throttlingException"})
    return b"".join(frame(headers, payload) for headers in kinds)


KINDS: Final = (
    "messageStart",
    "contentBlockDelta",
    "contentBlockStart",
    "contentBlockStop",
    "messageStop",
    "metadata",
    "unknown",
)


def stream(lines: Iterable[tuple[str, Any]]) -> bytes:
    """The stream of some events."""
    data = b""
    for name, payload in lines:
        data = data[:-CUT_BYTES] if name == "cut" else data + event(name, payload)
    return data


def lines_of(path: Path) -> list[tuple[str, Any]]:
    """What a `.jsonl` says."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(name, payload) for name, payload in lines]


if __name__ == "__main__":
    for source in sorted(FOLDER.glob("*.jsonl")):
        source.with_suffix(".eventstream").write_bytes(stream(lines_of(source)))
