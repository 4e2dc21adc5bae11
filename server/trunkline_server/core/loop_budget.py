"""What an agent loop may use altogether, and when it has to come to its end.

Before each turn in which a model may call tools it is asked whether there is enough for that turn and for one more: the
answer without tools that every loop ends with. What that one needs is kept back from the beginning, so that a budget
ends in an answer and not in the middle of the work.

Counts of what was used come from providers, those of what lies ahead are estimates: a loop may end a turn early or
late.
"""

from dataclasses import dataclass
from typing import Final

from trunkline.v1.completion_pb2 import Usage
from trunkline_server.core.candidate import Price
from trunkline_server.core.pricing import price

ANSWER_TOKENS: Final = 1_024  # That the last answer may write, where its request sets no limit.
ANSWER_S: Final = 10.0
ANSWER_SHARE: Final = 0.25  # Of a budget, at most, is kept back for these two.


@dataclass(frozen=True, slots=True)
class LoopBudget:
    """Over all turns of an answer; None: no limit.

    Attributes:
        max_tokens: of input and output together.
        max_cost_nanos: 1e-9 US dollars. Turns of a model without a known price count as free.
        max_s: from the first turn on.
    """

    max_tokens: int | None = None
    max_cost_nanos: int | None = None
    max_s: float | None = None

    @property
    def tools_s(self) -> float | None:
        """How long tools may be called: the rest of the time is the last answer's."""
        if self.max_s is None:
            return None
        return self.max_s - min(ANSWER_S, ANSWER_SHARE * self.max_s)


@dataclass(frozen=True, slots=True)
class Spent:
    """What the turns so far used."""

    tokens: int = 0
    cost_nanos: int = 0
    s: float = 0.0


def exhausted(
    budget: LoopBudget,
    spent: Spent,
    input_tokens: int,
    max_output_tokens: int | None,
    rate: Price,
) -> str:
    """Which part of a budget does not last for one more turn with tools: time, tokens or cost; empty: it does.

    Args:
        input_tokens: that the next turn reads. The last answer after it reads at least as many again.
        max_output_tokens: as the request says.
        rate: of who is likely to answer.
    """
    if budget.tools_s is not None and spent.s >= budget.tools_s:
        return "time"
    written = ANSWER_TOKENS if max_output_tokens is None else max_output_tokens
    if budget.max_tokens is not None:
        kept = min(written, int(ANSWER_SHARE * budget.max_tokens))
        if spent.tokens + 2 * input_tokens + kept > budget.max_tokens:
            return "tokens"
    if budget.max_cost_nanos is not None:
        read = _nanos(Usage(input_tokens=input_tokens), rate)
        kept = min(
            _nanos(Usage(output_tokens=written), rate), int(ANSWER_SHARE * budget.max_cost_nanos)
        )
        if spent.cost_nanos + 2 * read + kept > budget.max_cost_nanos:
            return "cost"
    return ""


def _nanos(usage: Usage, rate: Price) -> int:
    cost = price(usage, rate)
    return 0 if cost is None else cost.amount_nanos
