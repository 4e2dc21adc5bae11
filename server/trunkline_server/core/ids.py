"""Identifiers: sortable by time, unguessable enough to be unique, short enough for a log line."""

from functools import lru_cache
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as ULIDs use it.
ENTROPY_BYTES: Final = 16
_PAIRS: Final = [a + b for a in ALPHABET for b in ALPHABET]
# The letter of a byte's lowest five bits.
_LETTERS: Final = bytes(ord(ALPHABET[byte & 31]) for byte in range(256))


def ulid(milliseconds: int, entropy: bytes) -> str:
    """A ULID of 26 characters. Each request has two of these, so there is no loop and little arithmetic.

    Args:
        milliseconds: since the epoch.
        entropy: `ENTROPY_BYTES` random bytes; of each five bits count, 80 in all.

    Source: https://github.com/ulid/spec
    """
    letters = entropy.translate(_LETTERS).decode("ascii")
    return f"{_second(milliseconds >> 10)}{_PAIRS[milliseconds & 1023]}{letters}"


@lru_cache(maxsize=16)
def _second(value: int) -> str:
    """The first 8 characters, which stay the same for a second."""
    return "".join(_PAIRS[value >> shift & 1023] for shift in (30, 20, 10, 0))
