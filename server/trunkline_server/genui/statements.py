"""Cuts an answer into statements while it comes, and leaves out what stands around them.

A statement begins on a line of the shape `name = ...`, and goes on over brackets, strings and conditions that are open.
It does not go on over such a line, which stands nowhere in the middle of one: whoever forgot a bracket loses no more
than that. Once there was a fence of three backticks, only what stands in fences counts. Everything else is prose.

Source: https://github.com/thesysdev/openui/blob/main/spec/language.md (1.0, sections 1.2, 1.4 and 4), read 2026-11-22.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from trunkline_server.genui.tokens import Lexer, Token

MAX_STATEMENT_CHARS: Final = 64 * 1024

_HEAD: Final = re.compile(r"[ \t]*(\$?[A-Za-z_][A-Za-z0-9_]{0,63})[ \t]*=(?!=)", re.ASCII)
_HEAD_CHARS: Final = 256  # Of a line too long to keep, for its name.
_FENCE: Final = "```"


@dataclass(frozen=True, slots=True)
class Source:
    """The tokens of a statement. `is_cut`: it was not closed; there was a next one, or the answer's end."""

    tokens: Sequence[Token]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class TooLong:
    """A statement of which nothing was kept but its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Prose:
    """A line that is no statement, or a fence."""


Found: TypeAlias = Source | TooLong | Prose


class StatementReader:
    """Reads one answer. However it is cut into pieces, the same is found in it."""

    def __init__(self) -> None:
        self._line = _Line()
        self._open: _Open | None = None  # The statement that has begun.
        self._has_fence = False
        self._is_fenced = False

    def feed(self, text: str) -> Iterator[Found]:
        """More of the answer, in order; what it brings to an end."""
        *lines, rest = text.split("\n")
        for line in lines:
            self._line.add(line)
            yield from self._read(self._line)
            self._line = _Line()
        self._line.add(rest)
        # Without waiting for the line's end, unless it continues the statement, or may be a comment.
        is_elsewhere = self._line.first not in ("", "?", "/", "#")
        if is_elsewhere and self._open is not None and self._open.is_whole:
            yield from self._finish()

    def end(self) -> Iterator[Found]:
        """The answer is over."""
        yield from self._read(self._line)
        yield from self._finish()

    def _read(self, line: "_Line") -> Iterator[Found]:
        """One line."""
        text = line.text
        if text is None:
            if self._open is not None and self._open.is_whole:
                if line.is_idle:
                    return
                if not line.continues:
                    yield from self._finish()
            yield from self._too_long(line.head)
            return
        text = text.removesuffix("\r")
        bare = text.strip()
        if self._open is not None:
            lexer = self._open.lexer
            if lexer.is_in_string:
                yield from self._go_on(text)
                return
            is_other = bool(_HEAD.match(text)) or bare.startswith(_FENCE)
            if not is_other and (lexer.goes_on or bare.startswith("?")):
                yield from self._go_on(text)
                return
            if not bare or _is_comment(bare):
                return
            yield from self._finish()
        if bare.startswith(_FENCE):
            self._has_fence = True
            self._is_fenced = not self._is_fenced
            yield Prose()
        elif _HEAD.match(text) and (self._is_fenced or not self._has_fence):
            self._open = _Open()
            yield from self._go_on(text)
        elif bare and not _is_comment(bare):
            yield Prose()

    def _go_on(self, text: str) -> Iterator[Found]:
        statement = self._open
        assert statement is not None
        statement.chars += len(text) + 1
        if statement.chars > MAX_STATEMENT_CHARS:
            yield from self._too_long(text)
        elif not statement.lexer.add(text, is_fenced=self._is_fenced):
            self._is_fenced = False
            yield from self._finish()
            yield Prose()

    def _too_long(self, head: str) -> Iterator[Found]:
        """Of a statement that has begun, or of one that would begin here."""
        if self._open is not None:
            tokens = self._open.lexer.tokens
            self._open = None
            yield TooLong(tokens[0].value if tokens else "")
        elif (match := _HEAD.match(head)) and (self._is_fenced or not self._has_fence):
            yield TooLong(match[1])
        else:
            yield Prose()

    def _finish(self) -> Iterator[Found]:
        if self._open is not None:
            lexer = self._open.lexer
            is_cut = lexer.goes_on
            lexer.close()
            self._open = None
            yield Source(lexer.tokens, is_cut)


class _Open:
    def __init__(self) -> None:
        self.lexer = Lexer()
        self.chars = 0

    @property
    def is_whole(self) -> bool:
        """Does it end here, unless the next line begins with a question mark?"""
        return not self.lexer.goes_on


class _Line:
    """A line, as it comes: no more of it than a statement may have."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._chars = 0
        self.first = ""  # Its first character that is no white space.
        self.head = ""

    def add(self, piece: str) -> None:
        self.first = self.first or piece.lstrip()[:1]
        if len(self.head) < _HEAD_CHARS:
            self.head += piece[: _HEAD_CHARS - len(self.head)]
        self._chars += len(piece)
        if self._chars > MAX_STATEMENT_CHARS:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    @property
    def text(self) -> str | None:
        """None: it was too long."""
        return None if self._chars > MAX_STATEMENT_CHARS else "".join(self._pieces)

    @property
    def is_idle(self) -> bool:
        """Is it empty, or a comment?"""
        return not self.first or _is_comment(self.head.lstrip())

    @property
    def continues(self) -> bool:
        """Does it go on with a statement that could end before it?"""
        return self.first == "?"


def _is_comment(bare: str) -> bool:
    return bare.startswith(("#", "//"))
