"""Numbers that stay exact where they can, and the functions of them.

They are fractions, so that 0.1 + 0.2 is 0.3 and 1/3 * 3 is 1. A function without an exact result gives one of `DIGITS`
digits, and whatever is computed from it is rounded to as many. The size of every number on the way is bounded, so that
no operation takes longer than microseconds.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow, Underflow
from fractions import Fraction
from typing import Final

MAX_BITS: Final = 4_096  # Of a numerator or denominator: about 1,200 digits.
MAX_EXPONENT: Final = 1_200  # Of ten, in a number as it is written or rounded.
MAX_ARGUMENTS: Final = 100
MAX_FACTORIAL: Final = 400
MAX_COMB: Final = 1_000
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


def number_of(text: str) -> Number:
    """What is written, as it is written: digits, a decimal point, an exponent of ten. Raises: CalculationError."""
    _, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        raise CalculationError(f"exponents go to {MAX_EXPONENT}")
    return _bounded(Fraction(text), True)


def negative(x: Number) -> Number:
    """Its negative."""
    return Number(-x.value, x.is_exact)


_TOO_LARGE: Final = "a number on the way has too many digits"


def _bounded(value: Fraction, is_exact: bool) -> Number:
    """Exact while it is short; rounded when it is not, unless it is so large that rounding does not help."""
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    return Number(value) if is_exact and bits <= MAX_BITS else _rounded(_decimal(value))


def _context() -> Context:
    traps = [DivisionByZero, InvalidOperation, Overflow, Underflow]
    return Context(prec=DIGITS, Emin=-MAX_EXPONENT, Emax=MAX_EXPONENT, traps=traps)


def _decimal(value: Fraction) -> Decimal:
    try:
        return _context().divide(Decimal(value.numerator), Decimal(value.denominator))
    except (Overflow, Underflow):
        raise CalculationError(_TOO_LARGE) from None


def _rounded(value: Decimal) -> Number:
    return Number(Fraction(value), is_exact=False)


def _inexact(compute: Callable[[Context], Decimal], problem: str) -> Number:
    try:
        return _rounded(compute(_context()))
    except (Overflow, Underflow):
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


OPERATORS: Final[Mapping[str, Callable[[Number, Number], Number]]] = {
    "+": _exact(lambda a, b: a + b),
    "-": _exact(lambda a, b: a - b),
    "*": _exact(lambda a, b: a * b),
    "/": _exact(lambda a, b: a / b),
    "//": _exact(lambda a, b: Fraction(a // b)),
    "%": _exact(lambda a, b: a % b),
}


def power(base: Number, exponent: Number) -> Number:
    """A power, exact where the exponent is a whole number. Raises: CalculationError."""
    if not base.value and exponent.value < 0:
        raise CalculationError("division by zero")
    if base.is_exact and exponent.is_exact and exponent.value.denominator == 1:
        if abs(base.value) in (0, 1):  # However high a power, it is short.
            return Number(_unit_power(base.value, int(exponent.value)))
        bits = max(base.value.numerator.bit_length(), base.value.denominator.bit_length())
        if (bits - 1) * abs(exponent.value) <= MAX_BITS:
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
    return OPERATORS["/"](sine, cosine)


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
    chosen = math.comb(_integer(n, 0, MAX_COMB), _integer(k, 0, MAX_COMB))
    return _bounded(Fraction(chosen), True)


def _of_integers(function: Callable[..., int]) -> _Function:
    def compute(*arguments: Number) -> Number:
        limit = 1 << MAX_BITS
        return _bounded(Fraction(function(*(_integer(x, -limit, limit) for x in arguments))), True)

    return _of(1, MAX_ARGUMENTS, compute)


def _total(*arguments: Number) -> Number:
    total = Number(Fraction(0))
    for x in arguments:
        total = OPERATORS["+"](total, x)
    return total


def _mean(*arguments: Number) -> Number:
    return OPERATORS["/"](_total(*arguments), Number(Fraction(len(arguments))))


_PI: Final = _rounded(Decimal("3.141592653589793238462643383279503"))
CONSTANTS: Final[Mapping[str, Number]] = {
    "pi": _PI,
    "tau": _rounded(Decimal("6.283185307179586476925286766559006")),
    "e": _rounded(Decimal("2.718281828459045235360287471352662")),
}
_HALF_TURN: Final = Number(Fraction(180))
FUNCTIONS: Final[Mapping[str, _Function]] = {
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
    "degrees": _of(1, 1, lambda x: OPERATORS["/"](OPERATORS["*"](x, _HALF_TURN), _PI)),
    "radians": _of(1, 1, lambda x: OPERATORS["/"](OPERATORS["*"](x, _PI), _HALF_TURN)),
    "factorial": _of(1, 1, _factorial),
    "comb": _of(2, 2, _comb),
    "gcd": _of_integers(math.gcd),
    "lcm": _of_integers(math.lcm),
}


def text_of(number: Number) -> str:
    """Exact where that can be written out; else in `SHOWN_DIGITS` digits, and as a fraction where that is short."""
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
