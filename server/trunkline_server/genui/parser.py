"""OpenUI Lang: tokens to a statement.

Source: https://github.com/thesysdev/openui/blob/main/spec/language.md (1.0, section 1.6), read 2026-11-22.
"""

import math
from collections.abc import Sequence
from typing import Final

from trunkline_server.genui.syntax import (
    KEYWORDS,
    Array,
    Binary,
    Call,
    Conditional,
    Expression,
    Function,
    Index,
    Literal,
    Member,
    Number,
    Object,
    Reference,
    Statement,
    Unary,
    height_is_bounded,
)
from trunkline_server.genui.tokens import FUNCTION, NAME, NUMBER, SIGN, STATE, STRING, Token

MAX_DEPTH: Final = 32  # Brackets within brackets, and operators before operators.
MAX_NAME_CHARS: Final = 64
MAX_NUMBER_CHARS: Final = 40

_STRENGTHS: Final = {
    "||": 1,
    "&&": 2,
    "==": 3,
    "!=": 3,
    ">": 4,
    "<": 4,
    ">=": 4,
    "<=": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "%": 6,
}
_NOTHING: Final = Token(SIGN, "")
# Written with or without the `@`.
_FORMS: Final = ("Action", "Query", "Mutation")


class Unreadable(Exception):
    """The tokens are no statement. The text says why, and quotes nothing."""


class TooDeep(Unreadable):
    """They would be one, but for its depth."""


def parse(tokens: Sequence[Token]) -> tuple[Statement, bool]:
    """A statement, and whether all of it was used: what follows a whole expression is no part of it.

    Brackets that are open at the end are closed there.

    Raises:
        Unreadable, TooDeep.
    """
    if len(tokens) < 3 or tokens[0].kind not in (NAME, STATE) or tokens[1] != Token(SIGN, "="):
        raise Unreadable("it is no `name = value`")
    name = tokens[0].value
    if name in KEYWORDS or len(name) > MAX_NAME_CHARS:
        raise Unreadable("its name can't be one")
    parser = _Parser(tokens, 2)
    value = parser.expression()
    if not height_is_bounded(value):
        raise TooDeep("it is nested too deeply")
    return Statement(name, value), parser.is_at_end


class _Parser:
    def __init__(self, tokens: Sequence[Token], at: int) -> None:
        self._tokens = tokens
        self._at = at
        self._depth = 0

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._tokens)

    def expression(self) -> Expression:
        self._descend()
        condition = self._binary(1)
        if self._takes("?"):
            then = self.expression()
            if not self._takes(":"):
                raise Unreadable("a condition has one branch")
            condition = Conditional(condition, then, self.expression())
        self._depth -= 1
        return condition

    def _binary(self, weakest: int) -> Expression:
        left = self._unary()
        while True:
            kind, operator = self._next()
            strength = _STRENGTHS.get(operator, 0) if kind == SIGN else 0
            if strength < weakest:
                return left
            self._at += 1
            # At most six within each other, as there are six strengths.
            left = Binary(operator, left, self._binary(strength + 1))

    def _unary(self) -> Expression:
        for operator in ("!", "-"):
            if self._takes(operator):
                self._descend()
                operand = self._unary()
                self._depth -= 1
                return Unary(operator, operand)
        return self._postfix()

    def _postfix(self) -> Expression:
        base = self._primary()
        while True:
            if self._takes("."):
                kind, field = self._next()
                if kind != NAME and not (kind == NUMBER and field.isdigit()):
                    raise Unreadable("a point is followed by no field")
                self._at += 1
                base = Member(base, _bounded(field))
            elif self._takes("["):
                base = Index(base, self.expression())
                self._close("]")
            else:
                return base

    def _primary(self) -> Expression:
        kind, value = self._next()
        self._at += 1
        if kind == STRING:
            return Literal(value)
        if kind == NUMBER:
            return Literal(_number(value))
        if kind == STATE:
            return Reference(_bounded(value))
        if kind == FUNCTION:
            if not self._takes("("):
                raise Unreadable("a function is not called")
            arguments = self._items(")")
            return (Call if value in _FORMS else Function)(_bounded(value), arguments)
        if kind == NAME:
            return self._named(_bounded(value))
        if value == "(":
            inner = self.expression()
            self._close(")")
            return inner
        if value == "[":
            return Array(self._items("]"))
        if value == "{":
            return self._object()
        raise Unreadable("a value is missing")

    def _named(self, name: str) -> Expression:
        if name in KEYWORDS:
            return Literal(KEYWORDS[name])
        if name[0].isupper() and self._takes("("):
            return Call(name, self._items(")"))
        return Reference(name)

    def _items(self, closing: str) -> tuple[Expression, ...]:
        """Commas between them may be left out, and there may be too many."""
        items: list[Expression] = []
        while not self.is_at_end and not self._takes(closing):
            if not self._takes(","):
                items.append(self.expression())
        return tuple(items)

    def _object(self) -> Expression:
        entries: dict[str, Expression] = {}
        while not self.is_at_end and not self._takes("}"):
            if self._takes(","):
                continue
            kind, key = self._next()
            if kind not in (STRING, NAME, NUMBER, STATE):
                raise Unreadable("an object has no key where one belongs")
            self._at += 1
            if not self._takes(":"):
                raise Unreadable("a key has no value")
            entries[key.removeprefix("$") if kind == STATE else key] = self.expression()
        return Object(tuple(entries.items()))

    def _close(self, closing: str) -> None:
        if not self._takes(closing) and not self.is_at_end:
            raise Unreadable("a bracket is not closed")

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooDeep("it is nested too deeply")

    def _next(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _NOTHING

    def _takes(self, sign: str) -> bool:
        if self._next() != (SIGN, sign):
            return False
        self._at += 1
        return True


def _bounded(name: str) -> str:
    if len(name) > MAX_NAME_CHARS:
        raise Unreadable("a name is too long")
    return name


def _number(text: str) -> Number:
    try:
        is_finite = len(text) <= MAX_NUMBER_CHARS and math.isfinite(float(text))
    except ValueError:
        is_finite = False
    if not is_finite:
        raise Unreadable("a number is none")
    return Number(text)
