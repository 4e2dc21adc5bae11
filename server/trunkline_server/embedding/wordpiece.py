"""Texts to the pieces of words that BERT's models read.

A word that the vocabulary has is one piece; of any other the longest beginning that it has is taken, then the longest
that it has of the rest. The library that usually does this brings a client of a model hub and a dozen other packages
along; tests compare this with it.

`vocabulary.txt` is that of BERT base, uncased, unchanged (Google, Apache-2.0): the model was made with it.
"""

import re
import unicodedata
from functools import lru_cache
from importlib.resources import files
from typing import Final

VOCABULARY: Final = "vocabulary.txt"
UNKNOWN: Final = "[UNK]"
BEGIN: Final = "[CLS]"
END: Final = "[SEP]"
MAX_WORD_CHARS: Final = 100  # What is longer is no word.
LAST_LATIN: Final = "\u024f"

_ASCII: Final = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_CJK: Final = re.compile(
    r"[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)


class WordPieces:
    """Pieces are numbered by their lines in the vocabulary."""

    def __init__(self) -> None:
        text = files(__package__).joinpath(VOCABULARY).read_text(encoding="utf-8")
        pieces = text.removesuffix("\n").split("\n")
        self._numbers = {piece: number for number, piece in enumerate(pieces)}
        self._longest = max(map(len, pieces))
        self.begin, self.end = self._numbers[BEGIN], self._numbers[END]
        self._unknown = self._numbers[UNKNOWN]
        # Letters of other scripts are in the vocabulary, words of theirs hardly.
        self._unread = {n for piece, n in self._numbers.items() if max(piece) > LAST_LATIN}
        self._unread.add(self._unknown)

    def numbers(self, text: str) -> list[int]:
        """The pieces of a text, without the marks of its begin and end."""
        return [number for word in words(text) for number in self._split(word)]

    def share_read(self, numbers: list[int]) -> float:
        """How much of it is of the alphabet that the vocabulary was made for: 0 to 1, and 0 for nothing."""
        unread = sum(number in self._unread for number in numbers)
        return 1 - unread / len(numbers) if numbers else 0.0

    def _split(self, word: str) -> list[int]:
        if (whole := self._numbers.get(word)) is not None:
            return [whole]
        if len(word) > MAX_WORD_CHARS:
            return [self._unknown]
        found = []
        start, prefix = 0, ""
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                if (number := self._numbers.get(prefix + word[start:end])) is not None:
                    break
            else:
                return [self._unknown]
            found.append(number)
            start, prefix = end, "##"
        return found


def words(text: str) -> list[str]:
    """In small letters without accents; each mark, and each Chinese character, is a word of its own."""
    if text.isascii():
        # A control character is no boundary.
        return _ASCII.findall(_CONTROL.sub("", text).lower())
    return "".join([_plain(char) for char in unicodedata.normalize("NFD", _spaced(text))]).split()


def _spaced(text: str) -> str:
    return _CJK.sub(r" \g<0> ", "".join([char for char in text if _is_kept(char)]))


@lru_cache(4_096)
def _is_kept(char: str) -> bool:
    return char in "\t\n\r" or (char != "\ufffd" and unicodedata.category(char)[0] != "C")


@lru_cache(4_096)
def _plain(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Mn":
        return ""
    if category[0] == "P" or (char.isascii() and not char.isalnum()):
        return f" {char} "
    return char.lower()
