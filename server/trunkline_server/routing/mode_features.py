"""What a text shows of the work that it asks for: words, pairs of words, and its shape.

Features are strings. Words stand for themselves; what is not a word of the text begins with a mark that no word has.
All of it takes time in proportion to what is read, and no more than head and tail of a text are read.
"""

import re
from collections.abc import Iterator
from typing import Final

HEAD_CHARS: Final = 1_200
TAIL_CHARS: Final = 400
MAX_TOKENS: Final = 320
MAX_WORD_CHARS: Final = 24
LAST_LATIN: Final = "\u024f"

TOKEN: Final = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?|\d+|[^\w\s]|_")
SHAPES: Final = (
    ("#call", re.compile(r"\b\w{2,40}\([^()\n]{0,80}\)")),
    ("#snake", re.compile(r"\b[a-z]{1,30}_[a-z_]{1,40}\b")),
    ("#camel", re.compile(r"\b[a-z]{2,20}[A-Z][A-Za-z]{1,30}\b")),
    ("#file", re.compile(r"[\w~/.-]{0,40}(?:/\w{2,30}){1,9}|\b\w{1,30}\.[a-z]{1,4}\b")),
    ("#quoted", re.compile(r"`[^`\n]{1,80}`")),
    ("#latex", re.compile(r"\\[a-z]{2,20}|\$[^$\n]{1,80}\$|[a-z]\^[\d{(]")),
    ("#equation", re.compile(r"[\d\w)] ?[=<>+*/^-]{1,2} ?[\d\w(]")),
    ("#options", re.compile(r"(?m)^\(?[A-D1-4][).:] ")),
    ("#money", re.compile(r"[$€£] ?\d|\d ?%")),
    ("#braces", re.compile(r"[{};]\s*$", re.MULTILINE)),
    ("#name", re.compile(r"(?<=[a-z,] )[A-Z][a-z]{1,20}\b")),
)
LENGTHS: Final = (24, 60, 120, 240, 500, 1_000)
LINES: Final = (1, 2, 4, 10)
COUNTS: Final = (0, 1, 2, 4, 8)


def glance(text: str) -> str:
    """As much of a text as is read."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"


def is_latin(text: str) -> bool:
    """Are most of its letters those of the prompts that the heads learnt from?"""
    if text.isascii():
        return True
    letters = [letter for letter in text if letter.isalpha()]
    return 2 * sum(letter <= LAST_LATIN for letter in letters) >= len(letters)


def features(text: str) -> set[str]:
    """Of a text as `glance` gives it; each counts once. Empty for an empty text."""
    tokens = [token[:MAX_WORD_CHARS] for token in TOKEN.findall(text.lower())[:MAX_TOKENS]]
    words = ["#n" if token.isdigit() else token for token in tokens]
    if not words:
        return set()
    found = set(words)
    found.update(map("{} {}".format, words, words[1:]))
    found.add(f"^{words[0]}")
    found.add(f"^{' '.join(words[:2])}")
    found.add(f"{words[-1]}$")
    found.update(_shape(text, words))
    return found


def _shape(text: str, words: list[str]) -> Iterator[str]:
    for name, pattern in SHAPES:
        if pattern.search(text):
            yield name
    yield f"#chars{_step(len(text), LENGTHS)}"
    yield f"#lines{_step(text.count(chr(10)) + 1, LINES)}"
    yield f"#figures{_step(words.count('#n'), COUNTS)}"
    yield f"#commas{_step(words.count(','), COUNTS)}"
    if "?" not in words:
        yield "#no?"


def _step(count: int, steps: tuple[int, ...]) -> int:
    return sum(count > step for step in steps)
