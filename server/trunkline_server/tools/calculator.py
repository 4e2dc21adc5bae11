"""Arithmetic from text, without ever handing text to the interpreter.

Numbers are fractions, so that 0.1 + 0.2 is 0.3 and 1/3 * 3 is 1. A function without an exact result gives one of
`DIGITS` digits, and whatever is computed from it is rounded to as many. Everything that could grow is bounded: the
text, its nesting, and the bits of every number on the way, so that an evaluation takes milliseconds at worst.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from fractions import Fraction
from typing import Final

MAX_CHARS: Final = 1_000
MAX_DEPTH: Final = 32  # Of parentheses, signs and powers inside each other.
MAX_BITS: Final = 4_096  # Of a numerator or denominator: about 1,200 digits.
MAX_EXPONENT: Final = 1_200  # Of ten, in a number as it is written or rounded.
MAX_ARGUMENTS: Final = 100
MAX_FACTORIAL: Final = 400
DIGITS: Final = 34  # Of what is not exact.
SHOWN_DIGITS: Final = 15
MAX_DECIMALS: Final = 40  # Of an exact result that is shown in full.
MAX_FRACTION_CHARS: Final = 40  # Of one that is also shown as a fraction.
MAX_ANGLE: Final = 10**6  # Radians. Beyond it, what is left of the digits of an angle says little.


class CalculationError(Exception):
    """The expression has no value here. Its text is for the one who wrote the expression."""


@dataclass(frozen=True, slots=True)
class Number:
    """A value. One that is not exact holds at most `DIGITS` digits."""

    value: Fraction
    is_exact: bool = True


def calculate(expression: str) -> str:
    """The value of an expression, as text.

    Operators are + - * / // % and ** (or ^); // rounds down, % has the sign of its right side. Angles are radians.

    Raises:
        CalculationError.
    """
    return _shown(evaluate(expression))


def evaluate(expression: str) -> Number:
    """The value of an expression.

    Raises:
        CalculationError.
    """
    if len(expression) > MAX_CHARS:
        raise CalculationError(f"the expression is longer than {MAX_CHARS} characters")
    return _Parser(_tokens(expression)).whole()


_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<operator>\*\*|//|[-+*/%^(),]))"
)
_WRITTEN_OTHERWISE: Final = str.maketrans(
    {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "π": "pi"}
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
            value = _OPERATORS[operator](value, self._product())
        return value

    def _product(self) -> Number:
        value = self._signed()
        while operator := self._take("*", "/", "//", "%"):
            value = _OPERATORS[operator](value, self._signed())
        return value

    def _signed(self) -> Number:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CalculationError(f"the expression nests deeper than {MAX_DEPTH} levels")
        sign = self._take("+", "-")
        # A sign binds less than a power before it, and more than one behind it: -2**2 is -4, 2**-2 is 1/4.
        value = self._signed() if sign else self._power()
        self._depth -= 1
        return Number(-value.value, value.is_exact) if sign == "-" else value

    def _power(self) -> Number:
        base = self._atom()
        return _power(base, self._signed()) if self._take("**", "^") else base

    def _atom(self) -> Number:
        token = self._peek()
        self._next += 1
        if token.kind == "number":
            return _number(token.text)
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
            if name in _CONSTANTS:
                return _CONSTANTS[name]
            if name in _FUNCTIONS:
                raise CalculationError(f"{name} needs its arguments in parentheses")
            raise CalculationError(f"{token} is no constant; known are {', '.join(_CONSTANTS)}")
        if name not in _FUNCTIONS:
            raise CalculationError(f"{token} is no function; known are {', '.join(_FUNCTIONS)}")
        arguments = []
        if not self._take(")"):
            arguments.append(self._sum())
            while self._take(","):
                arguments.append(self._sum())
                if len(arguments) > MAX_ARGUMENTS:
                    raise CalculationError(f"{name} takes at most {MAX_ARGUMENTS} arguments")
            self._close()
        return _FUNCTIONS[name](name, arguments)

    def _close(self) -> None:
        if not self._take(")"):
            raise CalculationError(f"')' is missing before {self._peek()}")


def _number(text: str) -> Number:
    _, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        raise CalculationError(f"exponents go to {MAX_EXPONENT}")
    return _bounded(Fraction(text), True)


_TOO_LARGE: Final = "a number on the way has too many digits"


def _bounded(value: Fraction, is_exact: bool) -> Number:
    if not is_exact:
        return _rounded(_decimal(value))
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise CalculationError(_TOO_LARGE)
    return Number(value)


def _context() -> Context:
    traps = [DivisionByZero, InvalidOperation, Overflow]
    return Context(prec=DIGITS, Emin=-MAX_EXPONENT, Emax=MAX_EXPONENT, traps=traps)


def _decimal(value: Fraction) -> Decimal:
    try:
        return _context().divide(Decimal(value.numerator), Decimal(value.denominator))
    except Overflow:
        raise CalculationError(_TOO_LARGE) from None


def _rounded(value: Decimal) -> Number:
    return Number(Fraction(value), is_exact=False)


def _inexact(compute: Callable[[Context], Decimal], problem: str) -> Number:
    try:
        return _rounded(compute(_context()))
    except Overflow:
        raise CalculationError(_TOO_LARGE) from None
    except (InvalidOperation, DivisionByZero):
        raise CalculationError(problem) from None


def _exact(operation: Callable[[Fraction, Fraction], Fraction]) -> Callable[..., Number]:
    def apply(left: Number, right: Number) -> Number:
        try:
            value = operation(left.value, right.value)
        except ZeroDivisionError:
            raise CalculationError("division by zero") from None
        return _bounded(value, left.is_exact and right.is_exact)

    return apply


_OPERATORS: Final[Mapping[str, Callable[[Number, Number], Number]]] = {
    "+": _exact(lambda a, b: a + b),
    "-": _exact(lambda a, b: a - b),
    "*": _exact(lambda a, b: a * b),
    "/": _exact(lambda a, b: a / b),
    "//": _exact(lambda a, b: Fraction(a // b)),
    "%": _exact(lambda a, b: a % b),
}


def _power(base: Number, exponent: Number) -> Number:
    if not base.value and exponent.value < 0:
        raise CalculationError("division by zero")
    if base.is_exact and exponent.is_exact and exponent.value.denominator == 1:
        bits = max(base.value.numerator.bit_length(), base.value.denominator.bit_length())
        # Of ones and zeros every power is short.
        if abs(base.value) not in (0, 1) and (bits - 1) * abs(exponent.value) > MAX_BITS:
            raise CalculationError(_TOO_LARGE)
        if abs(base.value) in (0, 1):
            return Number(_unit_power(base.value, int(exponent.value)))
        return _bounded(base.value ** int(exponent.value), True)
    if base.is_exact and exponent.value == Fraction(1, 2):
        return _sqrt(base)
    return _inexact(
        lambda context: context.power(_decimal(base.value), _decimal(exponent.value)),
        "a negative number has no such power",
    )


def _unit_power(base: Fraction, exponent: int) -> Fraction:
    return Fraction(1) if exponent == 0 or (base == -1 and exponent % 2 == 0) else base


def _sqrt(x: Number) -> Number:
    if x.value < 0:
        raise CalculationError("a negative number has no square root")
    top, bottom = math.isqrt(x.value.numerator), math.isqrt(x.value.denominator)
    if x.is_exact and (top * top, bottom * bottom) == (x.value.numerator, x.value.denominator):
        return Number(Fraction(top, bottom))
    return _inexact(lambda context: context.sqrt(_decimal(x.value)), "")


_Function = Callable[[str, list[Number]], Number]


def _of(least: int, most: int, compute: Callable[..., Number]) -> _Function:
    def apply(name: str, arguments: list[Number]) -> Number:
        if not least <= len(arguments) <= most:
            counts = str(least) if least == most else f"{least} to {most}"
            raise CalculationError(f"{name} takes {counts} argument{'s' * (most > 1)}")
        return compute(*arguments)

    return apply


def _ln(x: Number) -> Decimal:
    if x.value <= 0:
        raise CalculationError("only a number above 0 has a logarithm")
    return _context().ln(_decimal(x.value))


def _log(x: Number, base: Number | None = None) -> Number:
    if base is None:
        return _rounded(_ln(x))
    if base.value == 10:
        _ln(x)
        return _rounded(_context().log10(_decimal(x.value)))
    return _inexact(
        lambda context: context.divide(_ln(x), _ln(base)), "there is no logarithm of base 1"
    )


def _exp(x: Number) -> Number:
    return _inexact(lambda context: context.exp(_decimal(x.value)), "")


def _trigonometric(function: Callable[[float], float]) -> Callable[[Number], Number]:
    def compute(x: Number) -> Number:
        if abs(x.value) > MAX_ANGLE:
            raise CalculationError(f"angles go to {MAX_ANGLE:,} radians")
        result = function(float(x.value))
        # Nothing but the rounding of pi is left: the sine of pi is 0.
        if abs(x.value) > 1 and abs(result) < 1e-15 * float(abs(x.value)):
            result = 0.0
        return _of_float(result)

    return compute


def _tan(x: Number) -> Number:
    sine, cosine = _trigonometric(math.sin)(x), _trigonometric(math.cos)(x)
    if not cosine.value:
        raise CalculationError("there is no tangent of this angle")
    return _OPERATORS["/"](sine, cosine)


def _arc(function: Callable[[float], float]) -> Callable[[Number], Number]:
    def compute(x: Number) -> Number:
        try:
            return _of_float(function(float(x.value)))
        except (ValueError, OverflowError):
            raise CalculationError("there is no such angle") from None

    return compute


def _of_float(value: float) -> Number:
    # The shortest text that stands for it, because its other digits are noise.
    return Number(Fraction(repr(value)), is_exact=False)


def _round(x: Number, digits: Number | None = None) -> Number:
    """Halves go away from zero, as taught in school."""
    places = _integer(digits, -MAX_DECIMALS, MAX_DECIMALS) if digits else 0
    scale = Fraction(10) ** places
    scaled = math.floor(abs(x.value) * scale + Fraction(1, 2))
    return _bounded(Fraction(scaled if x.value >= 0 else -scaled) / scale, x.is_exact)


def _integer(x: Number, least: int, most: int) -> int:
    if x.value.denominator != 1 or not least <= x.value <= most:
        raise CalculationError(f"a whole number from {least} to {most} is needed")
    return int(x.value)


def _whole(function: Callable[[Fraction], int]) -> _Function:
    return _of(1, 1, lambda x: Number(Fraction(function(x.value)), x.is_exact))


def _factorial(n: Number) -> Number:
    return Number(Fraction(math.factorial(_integer(n, 0, MAX_FACTORIAL))))


def _comb(n: Number, k: Number) -> Number:
    chosen = math.comb(_integer(n, 0, MAX_BITS), _integer(k, 0, MAX_BITS))
    return _bounded(Fraction(chosen), True)


def _of_integers(function: Callable[..., int]) -> _Function:
    def compute(*arguments: Number) -> Number:
        limit = 1 << MAX_BITS
        return _bounded(Fraction(function(*(_integer(x, -limit, limit) for x in arguments))), True)

    return _of(1, MAX_ARGUMENTS, compute)


def _total(*arguments: Number) -> Number:
    total = Number(Fraction(0))
    for x in arguments:
        total = _OPERATORS["+"](total, x)
    return total


def _mean(*arguments: Number) -> Number:
    return _OPERATORS["/"](_total(*arguments), Number(Fraction(len(arguments))))


_PI: Final = _rounded(Decimal("3.141592653589793238462643383279503"))
_CONSTANTS: Final[Mapping[str, Number]] = {
    "pi": _PI,
    "tau": _rounded(Decimal("6.283185307179586476925286766559006")),
    "e": _rounded(Decimal("2.718281828459045235360287471352662")),
}
_HALF_TURN: Final = Number(Fraction(180))
_FUNCTIONS: Final[Mapping[str, _Function]] = {
    "sqrt": _of(1, 1, _sqrt),
    "abs": _of(1, 1, lambda x: Number(abs(x.value), x.is_exact)),
    "round": _of(1, 2, _round),
    "floor": _whole(math.floor),
    "ceil": _whole(math.ceil),
    "min": _of(1, MAX_ARGUMENTS, lambda *xs: min(xs, key=lambda x: x.value)),
    "max": _of(1, MAX_ARGUMENTS, lambda *xs: max(xs, key=lambda x: x.value)),
    "sum": _of(1, MAX_ARGUMENTS, _total),
    "mean": _of(1, MAX_ARGUMENTS, _mean),
    "exp": _of(1, 1, _exp),
    "ln": _of(1, 1, _log),
    "log": _of(1, 2, _log),
    "log10": _of(1, 1, lambda x: _log(x, Number(Fraction(10)))),
    "log2": _of(1, 1, lambda x: _log(x, Number(Fraction(2)))),
    "sin": _of(1, 1, _trigonometric(math.sin)),
    "cos": _of(1, 1, _trigonometric(math.cos)),
    "tan": _of(1, 1, _tan),
    "asin": _of(1, 1, _arc(math.asin)),
    "acos": _of(1, 1, _arc(math.acos)),
    "atan": _of(1, 1, _arc(math.atan)),
    "degrees": _of(1, 1, lambda x: _OPERATORS["/"](_OPERATORS["*"](x, _HALF_TURN), _PI)),
    "radians": _of(1, 1, lambda x: _OPERATORS["/"](_OPERATORS["*"](x, _PI), _HALF_TURN)),
    "factorial": _of(1, 1, _factorial),
    "comb": _of(2, 2, _comb),
    "gcd": _of_integers(math.gcd),
    "lcm": _of_integers(math.lcm),
}


def _shown(number: Number) -> str:
    """Exact as far as it can be written out, else in `SHOWN_DIGITS` digits, and as a fraction too where that is short."""
    value = number.value
    if number.is_exact:
        if value.denominator == 1:
            return str(value.numerator)
        if (decimals := _decimals(value.denominator)) <= MAX_DECIMALS:
            digits = str(abs(value.numerator) * 10**decimals // value.denominator)
            digits = digits.rjust(decimals + 1, "0")
            sign = "-" if value < 0 else ""
            return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"
    rounded = Context(prec=SHOWN_DIGITS).plus(_decimal(value))
    text = _plain(rounded)
    if number.is_exact and len(str(value)) <= MAX_FRACTION_CHARS:
        return f"{text} (rounded; exactly {value})"
    return text


def _decimals(denominator: int) -> int:
    """How many decimals a fraction has; more than are shown where there is no end to them."""
    for decimals in range(1, MAX_DECIMALS + 1):
        if 10**decimals % denominator == 0:
            return decimals
    return MAX_DECIMALS + 1


def _plain(value: Decimal) -> str:
    value = value.normalize()
    if value and -7 <= value.adjusted() < SHOWN_DIGITS + 6:
        return f"{value:f}"
    return str(value).replace("E", "e") if value else "0"
