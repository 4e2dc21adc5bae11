"""JSON Schemas as constrained decoding takes them: every object closed, and nothing in it that is not enforced.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from functools import lru_cache
from typing import Any, Final

import msgspec

# Keywords of JSON Schema that constrained decoding refuses.
# Source:
# https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
UNENFORCED: Final = frozenset(
    {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    }
)

BAD_JSON: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


# Tools and formats repeat from request to request, so their schemas are read once.
@lru_cache(maxsize=512)
def object_schema(text: str) -> bytes:
    """A schema that says it is an object's, as tools must."""
    schema = _schema(text or "{}")
    if not schema:
        return b'{"type":"object","properties":{}}'
    if not isinstance(schema, dict) or "type" in schema:
        return text.encode()
    return _encode({"type": "object", **schema})


@lru_cache(maxsize=128)
def closed_schema(text: str) -> tuple[bytes, tuple[str, ...]]:
    """A schema as constrained decoding takes it, and the keywords that had to go.

    Objects are closed, because open ones are refused. What then fits still fits the schema as it
    was; what had to go widens it.
    """
    schema = _schema(text)
    lost: set[str] = set()
    closed = _close(schema, lost)
    return (text.encode() if closed == schema else _encode(closed)), tuple(sorted(lost))


def _schema(text: str) -> Any:
    """A schema that was found valid at the door; as it stands where this reader is stricter."""
    try:
        return _decode(text)
    except BAD_JSON:
        return msgspec.Raw(text.encode())


def _close(schema: Any, lost: set[str]) -> Any:
    if not isinstance(schema, dict):
        return schema
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict):
            closed[key] = {name: _close(inner, lost) for name, inner in value.items()}
        elif key in ("anyOf", "allOf") and isinstance(value, list):
            closed[key] = [_close(inner, lost) for inner in value]
        elif key == "oneOf" and isinstance(value, list):
            closed["anyOf"] = [_close(inner, lost) for inner in value]
            lost.add(key)
        elif key == "items":
            closed[key] = _close(value, lost)
        elif key in UNENFORCED or (key == "minItems" and value not in (0, 1)):
            lost.add(key)
        else:
            closed[key] = value
    kinds = closed.get("type")
    if (
        "properties" in closed
        or kinds == "object"
        or (isinstance(kinds, list) and "object" in kinds)
    ):
        if closed.get("additionalProperties", False) is not False:
            lost.add("additionalProperties")
        closed["additionalProperties"] = False
    return closed
