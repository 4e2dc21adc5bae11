"""Is an answer right? By rules alone: no model judges another.

Questions ask for nothing but the answer, and some models say more. So a number is the last one of the text, a word is
what stands alone where answers stand, and a letter is one that nothing is joined to. All is compared as NFKC, case
makes no difference, and digits of every script are digits.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Final

JUDGE: Final = (
    "trunkline judge 1: the last number of the text, or the exact word after normalisation (NFKC, case, punctuation), "
    "or the letter of the option"
)
MAX_TEXT_CHARS: Final = 16_384  # Of a longer text the end is read.

_MINUS: Final = re.compile("[\u2010-\u2012\u2212]")
_ARABIC_MARKS: Final = str.maketrans({"\u066b": ".", "\u066c": ","})
# Three digits behind each mark: it sets thousands apart, unless the number begins with 0.
_NUMBER: Final = re.compile(
    r"(?<!\d)((?<![\w)])-)?(?:([1-9]\d{0,2}(?:([., '\u2019])\d{3})(?:\3\d{3})*)(?!\d)|(\d+))(?:[.,](\d+))?"
)
_LATIN: Final = "A-Za-z0-9\u00c0-\u024f"
# An apostrophe joins as a letter does: C'est, D'accord.
_LETTER: Final = rf"(?<![{_LATIN}])([A-D])(?![{_LATIN}'\u2019])"
_ONLY: Final = re.compile(r"[\W_]*([A-D])[\W_]*\Z")
_ENDS: Final = re.compile(rf"{_LETTER}[\W_]*\Z")
_BEGINS: Final = re.compile(rf"[\W_]*{_LETTER}\s*[).:\]*]")
_ANYWHERE: Final = re.compile(_LETTER)
_BOLD: Final = re.compile(r"\*\*([^*\n]+)\*\*")
_VOWEL_POINTS: Final = re.compile("[\u0640\u064b-\u0652]")  # Of Arabic, which are mostly left out.


class Kind(StrEnum):
    """What an answer is."""

    NUMBER = "number"
    WORD = "word"
    LETTER = "letter"


def is_right(text: str, kind: Kind, accepted: Sequence[str]) -> bool:
    """Does the text give one of the accepted answers?"""
    text = _plain(text[-MAX_TEXT_CHARS:])
    match kind:
        case Kind.NUMBER:
            found = last_number(text)
            return found is not None and found in [last_number(answer) for answer in accepted]
        case Kind.LETTER:
            return option(text) in accepted
        case Kind.WORD:
            words = {bare_words(answer) for answer in accepted}
            return any(bare_words(place) in words for place in _places(text))


def last_number(text: str) -> Decimal | None:
    """The last number of a text, whatever script its digits are of.

    `1,234`, `1.234`, `1 234` and `1'234` are all one thousand two hundred and thirty-four; `12.5` and `12,5` are twelve
    and a half.
    """
    text = _MINUS.sub("-", _ascii_digits(_plain(text)).translate(_ARABIC_MARKS))
    found = _NUMBER.findall(text)
    if not found:
        return None
    sign, grouped, mark, plain, decimals = found[-1]
    whole = grouped.replace(mark, "") if grouped else plain
    return Decimal(f"{sign}{whole}.{decimals or 0}")


def option(text: str) -> str:
    """The letter, A to D, that a text chooses; empty where there is none.

    A first line of nothing else counts most, then the end of the text, then its beginning. Elsewhere a letter counts
    only where no other one is named.
    """
    text = _plain(text)
    if len(text) == 1:
        text = text.upper()
    first_line = text.split("\n", 1)[0]
    found = _ONLY.match(first_line) or _ENDS.search(text) or _BEGINS.match(text)
    if found is not None:
        return found[1]
    named = set(_ANYWHERE.findall(text))
    return named.pop() if len(named) == 1 else ""


def bare_words(text: str) -> str:
    """Letters, digits and their marks, in lower case, with one space for all that is between them."""
    text = _VOWEL_POINTS.sub("", unicodedata.normalize("NFKC", text).casefold())
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join("".join(kept).split())


def _places(text: str) -> Iterator[str]:
    """Where an answer of a word may stand: alone, on the first or last line, behind a colon, in bold."""
    yield text
    lines = [line for line in text.split("\n") if line.strip()]
    if lines:
        yield lines[0]
        yield lines[-1]
        yield lines[-1].rpartition(":")[2]
    yield from _BOLD.findall(text)[-1:]


def _plain(text: str) -> str:
    """NFKC, without characters that only steer how a text is shown."""
    normal = unicodedata.normalize("NFKC", text)
    return "".join(c for c in normal if unicodedata.category(c) != "Cf").strip()


def _ascii_digits(text: str) -> str:
    return "".join(
        c if c.isascii() or (digit := unicodedata.decimal(c, None)) is None else str(digit)
        for c in text
    )
