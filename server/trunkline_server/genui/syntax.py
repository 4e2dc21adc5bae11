"""OpenUI Lang: what its expressions are, and how they are written down again, each in one way and on one line.

Source: https://github.com/thesysdev/openui/blob/main/spec/language.md (1.0, section 1), read 2026-11-22.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
KEYWORDS: Final = {"true": True, "false": False, "null": None}
MAX_HEIGHT: Final = 40  # Of the tree that an expression is.


@dataclass(frozen=True, slots=True)
class Number:
    """As it was written: 1.50 stays 1.50."""

    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    value: str | Number | bool | None


@dataclass(frozen=True, slots=True)
class Reference:
    """To a statement by its name, or to state: `$name`."""

    name: str

    @property
    def is_state(self) -> bool:
        return self.name.startswith("$")


@dataclass(frozen=True, slots=True)
class Array:
    items: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Object:
    entries: tuple[tuple[str, "Expression"], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """Of a component, `Query`, `Mutation` or `Action`."""

    name: str
    arguments: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Function:
    """A call of `@name`."""

    name: str
    arguments: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Member:
    base: "Expression"
    field: str


@dataclass(frozen=True, slots=True)
class Index:
    base: "Expression"
    index: "Expression"


@dataclass(frozen=True, slots=True)
class Unary:
    operator: str
    operand: "Expression"


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Conditional:
    condition: "Expression"
    then: "Expression"
    otherwise: "Expression"


Expression: TypeAlias = (
    Literal
    | Reference
    | Array
    | Object
    | Call
    | Function
    | Member
    | Index
    | Unary
    | Binary
    | Conditional
)

NULL: Final = Literal(None)


@dataclass(frozen=True, slots=True)
class Statement:
    """`name = value`. The name of state begins with `$`."""

    name: str
    value: Expression


def children(node: Expression) -> Iterator[Expression]:
    """The expressions that it is made of, in order."""
    match node:
        case Literal() | Reference():
            pass
        case Array(items):
            yield from items
        case Object(entries):
            for _, value in entries:
                yield value
        case Call(_, arguments) | Function(_, arguments):
            yield from arguments
        case Member(base, _):
            yield base
        case Index(base, index):
            yield base
            yield index
        case Unary(_, operand):
            yield operand
        case Binary(_, left, right):
            yield left
            yield right
        case Conditional(condition, then, otherwise):
            yield condition
            yield then
            yield otherwise
        case _:
            assert_never(node)


def height_is_bounded(node: Expression) -> bool:
    """May functions that call themselves walk over it?"""
    level: Sequence[Expression] = [node]
    for _ in range(MAX_HEIGHT):
        level = [child for parent in level for child in children(parent)]
        if not level:
            return True
    return False


def write(statement: Statement) -> str:
    """One line, without its end."""
    return f"{statement.name} = {_write(statement.value)}"


def _write(node: Expression) -> str:
    match node:
        case Literal(value):
            return (
                value.text if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)
            )
        case Reference(name):
            return name
        case Array(items):
            return f"[{_list(items)}]"
        case Object(entries):
            return "{" + ", ".join(f"{_key(key)}: {_write(value)}" for key, value in entries) + "}"
        case Call(name, arguments):
            return f"{name}({_list(arguments)})"
        case Function(name, arguments):
            return f"@{name}({_list(arguments)})"
        case Member(base, field):
            return f"{_base(base)}.{field}"
        case Index(base, index):
            return f"{_base(base)}[{_write(index)}]"
        case Unary(operator, operand):
            return f"{operator}{_operand(operand)}"
        case Binary(operator, left, right):
            return f"{_operand(left)} {operator} {_operand(right)}"
        case Conditional(condition, then, otherwise):
            return f"{_operand(condition)} ? {_operand(then)} : {_operand(otherwise)}"
        case _:
            assert_never(node)


def _list(items: Sequence[Expression]) -> str:
    # With commas a minus after a value can't be taken for a subtraction.
    return ", ".join(_write(item) for item in items)


def _operand(node: Expression) -> str:
    text = _write(node)
    return f"({text})" if isinstance(node, Unary | Binary | Conditional) else text


def _base(node: Expression) -> str:
    # `(1).5` is a field of a number, and `1.5` another number.
    is_number = isinstance(node, Literal) and isinstance(node.value, Number)
    return f"({_write(node)})" if is_number else _operand(node)


def _key(key: str) -> str:
    is_name = IDENTIFIER.match(key) and key not in KEYWORDS
    return key if is_name else json.dumps(key, ensure_ascii=False)
