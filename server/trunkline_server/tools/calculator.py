"""Arithmetic from text, without ever handing text to the interpreter: tokens, and a descent through them."""

import re
from dataclasses import dataclass
from typing import Final

from trunkline_server.tools.arithmetic import (
    CONSTANTS,
    FUNCTIONS,
    MAX_ARGUMENTS,
    OPERATORS,
    CalculationError,
    Number,
    negative,
    number_of,
    power,
    text_of,
)

MAX_CHARS: Final = 1_000
MAX_DEPTH: Final = 32  # Of parentheses, signs and powers inside each other.


def calculate(expression: str) -> str:
    """The value of an expression, as text.

    Operators are + - * / // % and ** (or ^); // rounds down, % has the sign of its right side. Angles are radians.

    Raises:
        CalculationError.
    """
    if len(expression) > MAX_CHARS:
        raise CalculationError(f"the expression is longer than {MAX_CHARS} characters")
    return text_of(_Parser(_tokens(expression)).whole())


_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<operator>\*\*|//|[-+*/%^(),]))"
)
# Signs that people write, and models too.
_WRITTEN_OTHERWISE: Final = str.maketrans(
    {"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-", "\u03c0": "pi"}
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, name, operator or end
    text: str
    at: int

    def __str__(self) -> str:
        return f"{self.text[:20]!r} at {self.at}" if self.text else "the end"


def _tokens(expression: str) -> list[_Token]:
    text = expression.translate(_WRITTEN_OTHERWISE).rstrip()
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            rest = text[at:].lstrip()
            raise CalculationError(f"{rest[0]!r} at {len(text) - len(rest) + 1} is not understood")
        kind = match.lastgroup or ""
        tokens.append(_Token(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    return [*tokens, _Token("end", "", len(text) + 1)]


class _Parser:
    """By recursive descent: a sum of products of signed powers."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def whole(self) -> Number:
        if self._peek().kind == "end":
            raise CalculationError("the expression is empty")
        value = self._sum()
        if self._peek().text == ",":
            raise CalculationError("a comma stands between arguments only, never in a number")
        if self._peek().kind != "end":
            raise CalculationError(f"an operator is missing before {self._peek()}")
        return value

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *operators: str) -> str:
        """The next token if it is one of these operators, else nothing."""
        token = self._peek()
        if token.kind != "operator" or token.text not in operators:
            return ""
        self._next += 1
        return token.text

    def _sum(self) -> Number:
        value = self._product()
        while operator := self._take("+", "-"):
            value = OPERATORS[operator](value, self._product())
        return value

    def _product(self) -> Number:
        value = self._signed()
        while operator := self._take("*", "/", "//", "%"):
            value = OPERATORS[operator](value, self._signed())
        return value

    def _signed(self) -> Number:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CalculationError(f"the expression nests deeper than {MAX_DEPTH} levels")
        sign = self._take("+", "-")
        # A sign binds less than a power before it, and more than one behind it: -2**2 is -4, 2**-2 is 1/4.
        value = self._signed() if sign else self._power()
        self._depth -= 1
        return negative(value) if sign == "-" else value

    def _power(self) -> Number:
        base = self._atom()
        return power(base, self._signed()) if self._take("**", "^") else base

    def _atom(self) -> Number:
        token = self._peek()
        self._next += 1
        if token.kind == "number":
            return number_of(token.text)
        if token.kind == "name":
            return self._named(token)
        if token.text != "(":
            raise CalculationError(f"a number is missing before {token}")
        value = self._sum()
        self._close()
        return value

    def _named(self, token: _Token) -> Number:
        name = token.text.lower()
        if not self._take("("):
            if name in CONSTANTS:
                return CONSTANTS[name]
            if name in FUNCTIONS:
                raise CalculationError(f"{name} needs its arguments in parentheses")
            raise CalculationError(f"{token} is no constant; known are {', '.join(CONSTANTS)}")
        if name not in FUNCTIONS:
            raise CalculationError(f"{token} is no function; known are {', '.join(FUNCTIONS)}")
        arguments = []
        if not self._take(")"):
            arguments.append(self._sum())
            while self._take(","):
                arguments.append(self._sum())
                if len(arguments) > MAX_ARGUMENTS:
                    raise CalculationError(f"{name} takes at most {MAX_ARGUMENTS} arguments")
            self._close()
        return FUNCTIONS[name](name, arguments)

    def _close(self) -> None:
        if not self._take(")"):
            raise CalculationError(f"')' is missing before {self._peek()}")
