"""When an agent loop has to come to its end, by time, tokens and money."""

import pytest

from trunkline_server.core.candidate import Price
from trunkline_server.core.loop_budget import LoopBudget, Spent, exhausted

RATE = Price(input_nanos=1_000_000, output_nanos=10_000_000)  # 1 and 10 nanos a token.


def told(
    budget: LoopBudget,
    spent: Spent,
    input_tokens: int = 0,
    max_output_tokens: int | None = None,
    rate: Price = RATE,
) -> str:
    """What is exhausted."""
    return exhausted(budget, spent, input_tokens, max_output_tokens, rate)


def test_without_limits_nothing_is_ever_exhausted():
    assert told(LoopBudget(), Spent(10**12, 10**15, 1e9), 10**9, 10**9) == ""


@pytest.mark.parametrize(
    ("spent", "input_tokens", "max_output_tokens", "expected"),
    [
        (0, 0, None, ""),
        # 10,000, of which 1,024 are the last answer's: two turns of input have to fit below 8,976.
        (6_976, 1_000, None, ""),
        (6_977, 1_000, None, "tokens"),
        (6_976, 1_001, None, "tokens"),
        (0, 4_488, None, ""),
        (0, 4_489, None, "tokens"),
        # The request says what an answer may take,
        (9_900, 0, 100, ""),
        (9_901, 0, 100, "tokens"),
        # but a quarter of the budget at most is kept back.
        (7_500, 0, 100_000, ""),
        (7_501, 0, 100_000, "tokens"),
    ],
)
def test_tokens_of_the_next_turn_and_of_the_last_answer_have_to_fit(
    spent, input_tokens, max_output_tokens, expected
):
    budget = LoopBudget(max_tokens=10_000)

    assert told(budget, Spent(tokens=spent), input_tokens, max_output_tokens) == expected


@pytest.mark.parametrize(
    ("spent", "input_tokens", "max_output_tokens", "rate", "expected"),
    [
        # 100,000 nanos, of which 10,240 are the last answer's.
        (87_760, 1_000, None, RATE, ""),
        (87_761, 1_000, None, RATE, "cost"),
        (87_761, 1_000, 100, RATE, ""),
        (75_000, 0, 10_000, RATE, ""),
        (75_001, 0, 10_000, RATE, "cost"),
        # What nobody knows the price of adds nothing to what was spent already.
        (100_000, 10**6, 10**6, Price(), ""),
        (100_001, 0, None, Price(), "cost"),
    ],
)
def test_so_does_what_they_cost(spent, input_tokens, max_output_tokens, rate, expected):
    budget = LoopBudget(max_cost_nanos=100_000)

    assert told(budget, Spent(cost_nanos=spent), input_tokens, max_output_tokens, rate) == expected


@pytest.mark.parametrize(("max_s", "tools_s"), [(100.0, 90.0), (40.0, 30.0), (8.0, 6.0)])
def test_of_the_time_ten_seconds_or_a_quarter_are_the_last_answers(max_s, tools_s):
    budget = LoopBudget(max_s=max_s)

    assert budget.tools_s == tools_s
    assert told(budget, Spent(s=tools_s - 0.001)) == ""
    assert told(budget, Spent(s=tools_s)) == "time"


def test_what_ends_first_is_named():
    budget = LoopBudget(max_tokens=10, max_cost_nanos=10, max_s=10.0)

    assert told(budget, Spent(11, 11, 11.0)) == "time"
    assert told(budget, Spent(11, 11, 0.0)) == "tokens"
    assert told(budget, Spent(0, 11, 0.0)) == "cost"
