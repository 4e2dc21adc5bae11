"""OpenUI Lang: text to tokens, a line at a time, and whether a statement goes on after it.

Source: https://github.com/thesysdev/openui/blob/main/spec/language.md (1.0, sections 1.2 to 1.4), read 2026-11-22.
"""

import re
from typing import Final, NamedTuple

STRING: Final = "string"  # Its value, not as it was written.
NUMBER: Final = "number"
NAME: Final = "name"
STATE: Final = "state"  # With its `$`.
FUNCTION: Final = "function"  # Without its `@`.
SIGN: Final = "sign"

_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}
_TOKEN: Final = re.compile(
    r"""(?P<skipped>[ \t\r\f\v]+|//.*|\#.*)
    |(?P<fence>```)
    |(?P<quote>["'])
    |(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]*)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<state>\$[A-Za-z_][A-Za-z0-9_]*)
    |(?P<function>@[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>===|!==|==|!=|>=|<=|&&|\|\||[=<>+\-*/%!?:.,()\[\]{}&|])
    |(?P<other>.)""",
    re.ASCII | re.VERBOSE | re.DOTALL,
)
_DIGITS: Final = re.compile(r"[0-9]+", re.ASCII)
_INSIDE: Final = {
    quote: re.compile(rf"[^{quote}\\]*(?:\\.[^{quote}\\]*)*", re.DOTALL) for quote in "\"'"
}
_SAME: Final = {"===": "==", "!==": "!=", "&": "&&", "|": "||"}
_ESCAPE: Final = {
    '"': re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL),
    "'": re.compile(r"\\(?:()(.))", re.DOTALL),
}
_ESCAPED: Final = {
    '"': {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"},
    "'": {"n": "\n", "t": "\t"},
}
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Token(NamedTuple):
    kind: str
    value: str


class Lexer:
    """The tokens of one statement, as its lines come."""

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self._brackets: list[str] = []  # What closes those that are open, innermost last.
        self._quote = ""
        self._string: list[str] = []
        self._conditions = 0  # Outside of brackets, those that wait for their second branch.

    @property
    def is_in_string(self) -> bool:
        return bool(self._quote)

    @property
    def goes_on(self) -> bool:
        """Is the next line a part of the statement whatever it says?"""
        if self._quote or self._brackets or self._conditions > 0:
            return True
        return bool(self.tokens) and self.tokens[-1] in (Token(SIGN, "?"), Token(SIGN, ":"))

    def add(self, line: str, *, is_fenced: bool) -> bool:
        """Read one line, without its end; False: a fence of three backticks has ended the statement.

        Args:
            is_fenced: the statement stands in a fence; otherwise backticks are like any other character.
        """
        at = 0
        if self._quote:
            self._string.append("\n")
            at = self._read_string(line, 0)
        while at < len(line):
            match = _TOKEN.match(line, at)
            assert match is not None
            kind = match.lastgroup
            at = match.end()
            if kind == "fence" and is_fenced:
                return False
            if kind == "quote":
                self._quote = match[0]
                at = self._read_string(line, at)
            elif kind == NUMBER:
                if self._ends_with("."):
                    # After a point digits are one field, so that `a.0.1` is `a[0][1]`.
                    match = _DIGITS.match(line, match.start())
                    assert match is not None
                    at = match.end()
                self.tokens.append(Token(NUMBER, match[0]))
            elif kind in (NAME, STATE):
                self.tokens.append(Token(kind, match[0]))
            elif kind == FUNCTION:
                self.tokens.append(Token(kind, match[0][1:]))
            elif kind == SIGN:
                at = self._read_sign(line, match[0], at)
        return True

    def close(self) -> None:
        """Nothing comes any more: a string that is open ends here."""
        if self._quote:
            self._end_string()

    def _read_string(self, line: str, at: int) -> int:
        match = _INSIDE[self._quote].match(line, at)
        assert match is not None
        end = match.end()
        if end < len(line) and line[end] == self._quote:
            self._string.append(match[0])
            self._end_string()
            return end + 1
        # The line is over; if by a backslash, then what that escapes is the end of the line.
        self._string.append(line[at:])
        return len(line)

    def _end_string(self) -> None:
        quote = self._quote
        raw = "".join(self._string)
        self._quote = ""
        self._string = []

        def unescaped(match: re.Match[str]) -> str:
            if match[1]:
                return chr(int(match[1], 16))
            return _ESCAPED[quote].get(match[2], match[2])

        value = _ESCAPE[quote].sub(unescaped, raw) if "\\" in raw else raw
        if _SURROGATE.search(value):
            # Two that belong together are one character; one alone is none, and could be sent to nobody.
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self.tokens.append(Token(STRING, value))

    def _read_sign(self, line: str, sign: str, at: int) -> int:
        if sign == "-" and not self._ends_with_value():
            digits = _TOKEN.match(line, at)
            if digits is not None and digits.lastgroup == NUMBER:
                self.tokens.append(Token(NUMBER, "-" + digits[0]))
                return digits.end()
        if sign in _CLOSING:
            self._brackets.append(_CLOSING[sign])
        elif sign in (")", "]", "}"):
            if not self._brackets or self._brackets[-1] != sign:
                return at  # It closes nothing.
            self._brackets.pop()
        elif not self._brackets and sign in ("?", ":"):
            self._conditions += 1 if sign == "?" else -1
        self.tokens.append(Token(SIGN, _SAME.get(sign, sign)))
        return at

    def _ends_with(self, sign: str) -> bool:
        return bool(self.tokens) and self.tokens[-1] == Token(SIGN, sign)

    def _ends_with_value(self) -> bool:
        if not self.tokens:
            return False
        kind, value = self.tokens[-1]
        return kind != SIGN or value in (")", "]")
