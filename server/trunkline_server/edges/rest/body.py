"""Bodies of JSON: read into a dialect's own types, and written so that every client reads the same lines."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from trunkline_server.core.validation import MAX_JSON_DEPTH, json_depth_is_bounded
from trunkline_server.edges.rest.http import Refused
from trunkline_server.edges.status import Refusal

Body = TypeVar("Body")

MAX_PROBLEM_CHARS: Final = 200

encode_plain = msgspec.json.Encoder().encode
# Some clients split a stream on every line end that Unicode knows, so those three are written as escapes.
_LINE_ENDS: Final = (
    (b"\xc2\x85", rb"\u0085"),
    (b"\xe2\x80\xa8", rb"\u2028"),
    (b"\xe2\x80\xa9", rb"\u2029"),
)
_PATH: Final = re.compile(r" - at `\$\.?([^`]*)`\Z")
_KEY: Final = re.compile(r"(?:missing required|contains unknown) field `([^`]*)`")


def encode(value: Any) -> bytes:
    """JSON in which no line end of Unicode is left."""
    data = encode_plain(value)
    if not data.isascii():
        for raw, escaped in _LINE_ENDS:
            if raw in data:
                data = data.replace(raw, escaped)
    return data


def read_body(decode: Callable[[bytes], Body], body: bytes) -> Body:
    """A body as it came, through a typed decoder of msgspec.

    Raises:
        Refused: not JSON, too deep, or a field of the wrong type; `field` is its path.
    """
    if not body.isascii():
        try:
            str(body, "utf-8")
        except UnicodeDecodeError as error:
            raise invalid("the body is no valid UTF-8") from error
    if not json_depth_is_bounded(body):
        raise invalid(
            f"the body nests deeper than {MAX_JSON_DEPTH} levels, or holds too many values"
        )
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise invalid(*_problem(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid("the body is no valid JSON") from error


def invalid(message: str, field: str | None = None) -> Refused:
    """The request is wrong, at this path."""
    return Refused(Refusal("INVALID_REQUEST", message, field=field))


def _problem(error: str) -> tuple[str, str | None]:
    """What the decoder says, and where: the path is of the object when it is a key that is missing or unknown."""
    path = _PATH.search(error)
    message = _PATH.sub("", error)
    steps = [path[1]] if path and path[1] else []
    if key := _KEY.search(message):
        steps.append(key[1])
    where = ".".join(steps)[:MAX_PROBLEM_CHARS]
    return message[:MAX_PROBLEM_CHARS], where or None
