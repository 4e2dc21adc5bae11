"""Arithmetic from text: exact where it can be, bounded everywhere, and clear about what it does not understand."""

import math
import random
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trunkline_server.tools.arithmetic import MAX_BITS, MAX_FACTORIAL, CalculationError
from trunkline_server.tools.calculator import MAX_CHARS, MAX_DEPTH, calculate

VALUES: Final = {
    "1": "1",
    "0.1 + 0.2": "0.3",
    "1/3*3": "1",
    "1/3": "0.333333333333333 (rounded; exactly 1/3)",
    "-7/2": "-3.5",
    "-1/8": "-0.125",
    "2**100": "1267650600228229401496703205376",
    "2^10": "1024",
    "-2**2": "-4",
    "2**-2": "0.25",
    "2**3**2": "512",
    "(-8)**3": "-512",
    "0**0": "1",
    "--3": "3",
    "7 // 2": "3",
    "-7 // 2": "-4",
    "7 % -3": "-2",
    "1.5 // 0.5": "3",
    "2 + 3 * 4 - 6 / 2": "11",
    "(2 + 3) * 4": "20",
    "12 - 5 - 4": "3",
    "24 / 4 / 2": "3",
    "1e3 + .5 + 5.": "1005.5",
    "1.5E-3": "0.0015",
    "100*(1+0.05)^10": "162.889462677744140625",
    "0.1**40": "0." + "0" * 39 + "1",
    "10 \u00d7 3 \u00f7 4 \u2212 1": "6.5",
    "(1+0.0575/365)**3650": "1.77705004899932",
    "(-1.0001)**10001": "-2.71841774141791",
    "(-1)**1e9": "1",
    "sqrt(9/4)": "1.5",
    "sqrt(2)": "1.4142135623731",
    "sqrt(2)**2": "2",
    "2 ** 0.5": "1.4142135623731",
    "27 ** (1/3)": "3",
    "\u03c0": "3.14159265358979",
    "sin(pi)": "0",
    "sin(pi/6)": "0.5",
    "cos(pi/2)": "0",
    "tan(pi/4)": "1",
    "atan(1)*4": "3.14159265358979",
    "degrees(pi)": "180",
    "radians(180)": "3.14159265358979",
    "exp(1)": "2.71828182845905",
    "exp(1000)": "1.97007111401705e+434",
    "ln(e)": "1",
    "log(e)": "1",
    "log(8, 2)": "3",
    "log(1000, 10)": "3",
    "log10(0.001)": "-3",
    "log2(1024)": "10",
    "round(2.5)": "3",
    "round(-2.5)": "-3",
    "round(2.345, 2)": "2.35",
    "round(1234.5, -2)": "1200",
    "floor(-1.5)": "-2",
    "ceil(1.2)": "2",
    "abs(-1/4)": "0.25",
    "min(3, 1/2, 2)": "0.5",
    "MAX(3, 1, 2)": "3",
    "sum(0.1, 0.1, 0.1)": "0.3",
    "mean(1, 2)": "1.5",
    "factorial(20)": "2432902008176640000",
    "comb(52, 5)": "2598960",
    "gcd(12, 18)": "6",
    "lcm(4, 6)": "12",
}


@pytest.mark.parametrize(("expression", "value"), VALUES.items())
def test_an_expression_has_its_value(expression, value):
    assert calculate(expression) == value


PROBLEMS: Final = {
    "": "the expression is empty",
    "  ": "the expression is empty",
    "(": "a number is missing before the end",
    "(1": "')' is missing before the end",
    "1)": "an operator is missing before ')' at 2",
    "1 2": "an operator is missing before '2' at 3",
    "2(3)": "an operator is missing before '(' at 2",
    "1 +": "a number is missing before the end",
    "* 2": "a number is missing before '*' at 1",
    "1,000 + 1": "a comma stands between arguments only, never in a number",
    "2 $ 3": "'$' at 3 is not understood",
    "x + 1": "'x' at 1 is no constant; known are pi, tau, e",
    "sin": "sin needs its arguments in parentheses",
    "sqrt()": "sqrt takes 1 argument",
    "log(1, 2, 3)": "log takes 1 to 2 arguments",
    "1/0": "division by zero",
    "1 % 0": "division by zero",
    "0 ** -1": "division by zero",
    "sqrt(-1)": "a negative number has no square root",
    "(-8) ** (1/3)": "a negative number has no such power",
    "ln(0)": "only a number above 0 has a logarithm",
    "log(5, 1)": "there is no logarithm of base 1",
    "asin(2)": "there is no such angle",
    "tan(pi/2)": "there is no tangent of this angle",
    "sin(1e9)": "angles go to 1,000,000 radians",
    "factorial(-1)": f"a whole number from 0 to {MAX_FACTORIAL} is needed",
    "factorial(2.5)": f"a whole number from 0 to {MAX_FACTORIAL} is needed",
}


@pytest.mark.parametrize(("expression", "problem"), PROBLEMS.items())
def test_what_has_no_value_is_told_clearly(expression, problem):
    with pytest.raises(CalculationError) as raised:
        calculate(expression)

    assert str(raised.value) == problem


TOO_LARGE: Final = "a number on the way has too many digits"


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("1+" * (MAX_CHARS // 2) + "1", f"longer than {MAX_CHARS} characters"),
        ("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH, f"nests deeper than {MAX_DEPTH} levels"),
        ("-" * MAX_DEPTH + "1", f"nests deeper than {MAX_DEPTH} levels"),
        ("1**" * MAX_DEPTH + "1", f"nests deeper than {MAX_DEPTH} levels"),
        (f"2**{MAX_BITS}", TOO_LARGE),
        ("9**9**9", TOO_LARGE),
        ("9**9**9**9**9", TOO_LARGE),
        ("1.000000000000001**1e30", TOO_LARGE),
        ("sqrt(2)**1e30", TOO_LARGE),
        ("1e1200*1e1200", TOO_LARGE),
        ("exp(1e6)", TOO_LARGE),
        ("exp(-1e6)", TOO_LARGE),
        ("exp(2000)*exp(2000)", TOO_LARGE),
        ("1e999999999", "exponents go to 1200"),
        ("factorial(401)", "a whole number from 0 to 400 is needed"),
        ("comb(1e9, 5e8)", "a whole number from 0 to"),
        (f"max({'1,' * 100}1)", "max takes at most 100 arguments"),
    ],
)
def test_nothing_grows_without_end(expression, problem):
    with pytest.raises(CalculationError, match=problem):
        calculate(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "(" * (MAX_DEPTH - 1) + "1" + ")" * (MAX_DEPTH - 1),
        f"2**{MAX_BITS - 1}",
        "1+" * (MAX_CHARS // 2 - 1) + "1",
        "factorial(400)",
        "1e1200",
    ],
)
def test_what_stays_within_the_limits_has_a_value(expression):
    assert calculate(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "().__class__",
        "lambda: 1",
        "'a' * 3",
        "[1]",
        "sqrt.__globals__",
        "1 if 1 else 2",
        "a := 1",
        "eval(1)",
        "1_000",
    ],
)
def test_what_python_would_understand_is_not_understood(expression):
    with pytest.raises(CalculationError):
        calculate(expression)


@given(st.text(alphabet="0123456789.+-*/%^()e, sqrtlnpiabxgm", max_size=60))
@example("1e5e5")
@example("..")
@settings(deadline=None)
def test_any_text_has_a_value_or_a_problem(text):
    try:
        said = calculate(text)
    except CalculationError as error:
        said = str(error)

    assert said


def test_a_tree_of_exact_operations_gives_what_fractions_give():
    dice = random.Random(4)
    for _ in range(300):
        expression, value = _tree(dice, 4)

        shown = calculate(f"({expression}) - ({value})")

        assert shown == "0", expression


def _tree(dice: random.Random, depth: int) -> tuple[str, Fraction]:
    if depth == 0:
        number = Fraction(dice.randint(0, 999), dice.choice([1, 10, 100]))
        return f"{float(number):.2f}", number
    left, a = _tree(dice, depth - 1)
    right, b = _tree(dice, depth - 1)
    operator = dice.choice("+-*/") if b else "-"
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a - b}[operator]
    return f"({left}) {operator} ({right})", value


@pytest.mark.parametrize(
    "name", ["exp", "ln", "sin", "cos", "tan", "atan", "sqrt", "log2", "log10"]
)
def test_functions_agree_with_pythons(name):
    dice = random.Random(name)
    function = {"ln": math.log}.get(name) or getattr(math, name)
    for x in [dice.uniform(0.01, 40) for _ in range(100)]:
        value = float(calculate(f"{name}({x!r})").split(" ")[0])

        assert math.isclose(value, function(x), rel_tol=1e-12, abs_tol=1e-13)
