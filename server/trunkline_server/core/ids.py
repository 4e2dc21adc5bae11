"""Identifiers: sortable by time, unguessable enough to be unique, short enough for a log line."""

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as ULIDs use it.
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
_LOW = (1 << 60) - 1


def ulid(milliseconds: int, entropy: bytes) -> str:
    """A ULID of 26 characters.

    Args:
        milliseconds: since the epoch.
        entropy: 10 random bytes.

    Source: https://github.com/ulid/spec
    """
    value = (milliseconds << 80) | int.from_bytes(entropy, "big")
    # Two halves, which fit machine words, and no loop: each request has two of these.
    high, low, two = value >> 60, value & _LOW, _PAIRS
    return (
        f"{two[high >> 60]}{two[high >> 50 & 1023]}{two[high >> 40 & 1023]}{two[high >> 30 & 1023]}"
        f"{two[high >> 20 & 1023]}{two[high >> 10 & 1023]}{two[high & 1023]}{two[low >> 50]}"
        f"{two[low >> 40 & 1023]}{two[low >> 30 & 1023]}{two[low >> 20 & 1023]}{two[low >> 10 & 1023]}{two[low & 1023]}"
    )
