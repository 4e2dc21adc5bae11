"""Identifiers: sortable by time, unguessable enough to be unique, short enough for a log line."""

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as ULIDs use it.
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]


def ulid(milliseconds: int, entropy: bytes) -> str:
    """A ULID of 26 characters.

    Args:
        milliseconds: since the epoch.
        entropy: 10 random bytes.

    Source: https://github.com/ulid/spec
    """
    value = (milliseconds << 80) | int.from_bytes(entropy, "big")
    pairs = _PAIRS
    return "".join(
        [
            pairs[(value >> shift) & 1023]
            for shift in (120, 110, 100, 90, 80, 70, 60, 50, 40, 30, 20, 10, 0)
        ]
    )
