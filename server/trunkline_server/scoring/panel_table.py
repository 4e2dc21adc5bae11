"""What an evaluation of panels says: a table, sentences, and the same for programs."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from trunkline_server.scoring.comparison import Comparison, best_alone, compare, sentences
from trunkline_server.scoring.panel_trial import Row
from trunkline_server.scoring.terminal import failures_line

NANOS: Final = 1_000_000_000
UNKNOWN: Final = "unknown"
NONE: Final = "-"
ESTIMATED: Final = "~"
DIGITS: Final = 3  # Of a cost, that say something.
SHARE_DECIMALS: Final = 4

# Title, and whether it is of numbers. Two tables, so that each fits a terminal.
RESULTS: Final = (
    ("name", False),
    ("kind", False),
    ("accuracy", True),
    ("95 %", True),
    ("USD each", True),
    ("mean s", True),
    ("p95 s", True),
    ("first s", True),
)
EVENTS: Final = (
    ("name", False),
    ("right", True),
    ("tokens in", True),
    ("out", True),
    ("errors", True),
    ("silent", True),
    ("degraded", True),
    ("early", True),
    ("escalated", True),
)


def comparisons(rows: Sequence[Row]) -> dict[str, Comparison]:
    """Of each panel that can be judged with the best model, by the panel's name. Empty without a model."""
    model = best_alone(rows)
    if model is None:
        return {}
    return {row.name: compare(row, model) for row in rows if row.is_panel and row.is_judged}


def results(row: Row) -> list[str]:
    """A line of the table of what came out."""
    low, high = row.interval
    return [
        row.name,
        "panel" if row.is_panel else "model",
        f"{row.accuracy:.1%}",
        f"{low:.0%} - {high:.0%}",
        cost(row),
        _seconds(row.mean_s),
        _seconds(row.high_s),
        _seconds(row.first_token_s),
    ]


def events(row: Row) -> list[str]:
    """A line of the table of what happened on the way."""
    return [
        row.name,
        f"{row.right} of {len(row.answers)}",
        _tokens(row, output=False),
        _tokens(row, output=True),
        str(row.count("problem")),
        str(row.silent),
        *(
            str(row.count(attribute)) if row.is_panel else NONE
            for attribute in ("is_degraded", "stopped_early", "is_escalated")
        ),
    ]


def verdicts(rows: Sequence[Row], found: Mapping[str, Comparison]) -> Iterator[str]:
    """A paragraph for each panel."""
    for row in rows:
        if not row.is_panel:
            continue
        if row.name in found:
            yield sentences(found[row.name])
        elif row.unasked:
            yield f"{row.name} can't be judged: it failed too often to be asked everything."
        elif not row.given:
            yield f"{row.name} can't be judged: it answered nothing."
        else:
            yield f"{row.name} has nothing to be compared with: no single model can be judged."


def troubles(rows: Sequence[Row]) -> Iterator[str]:
    """What went wrong, and what is not known."""
    for row in rows:
        problems = [answer.problem for answer in row.answers if answer.problem]
        if problems:
            yield failures_line(row.name, len(problems), row.unasked, problems[-1])
        if 0 < row.without_cost < len(row.given):
            yield (
                f"trunkline: {row.name}: the cost of {row.without_cost} of {len(row.given)} answers is not known, "
                "so that of an answer is not either"
            )
    if any(row.is_estimated for row in rows):
        yield f"trunkline: {ESTIMATED} is estimated in part: an upstream sent no usage, or was cancelled"


def line(row: Row, found: Comparison | None) -> str:
    """A row as JSON. What is not known is null; costs are exact decimals as text, as the contract's are whole nanos."""
    low, high = row.interval
    told: dict[str, Any] = {
        "name": row.name,
        "kind": "panel" if row.is_panel else "model",
        "asked": len(row.answers),
        "unasked": row.unasked,
        "right": row.right,
        "accuracy": _share(row.accuracy),
        "low": _share(low),
        "high": _share(high),
        "mean_s": _rounded(row.mean_s),
        "p95_s": _rounded(row.high_s),
        "first_token_s": _rounded(row.first_token_s),
        "cost_usd": None if row.cost_nanos is None else _usd(row.cost_nanos),
        "answers_without_cost": row.without_cost,
        "estimated": row.is_estimated,
        "input_tokens": _rounded(row.tokens(output=False)),
        "output_tokens": _rounded(row.tokens(output=True)),
        "errors": row.count("problem"),
        "silent": row.silent,
    }
    if row.is_panel:
        told |= {
            "degraded": row.count("is_degraded"),
            "stopped_early": row.count("stopped_early"),
            "escalated": row.count("is_escalated"),
            "verdict": None if found is None else _verdict(found),
        }
    return json.dumps(told)


def _verdict(found: Comparison) -> dict[str, Any]:
    return {
        "verdict": found.verdict.value,
        "best_model": found.model.name,
        "questions": found.questions,
        "better": found.better,
        "worse": found.worse,
        "difference": _share(found.difference),
        "p": _share(found.p),
        "questions_needed": found.needed,
        "cost_ratio": _rounded(found.dearer),
        "time_ratio": _rounded(found.slower),
    }


def cost(row: Row) -> str:
    """Of an answer, in US dollars, to three digits that say something."""
    if row.cost_nanos is None:
        return UNKNOWN if row.given else NONE
    return f"{ESTIMATED if row.is_estimated else ''}{_usd(row.cost_nanos)}"


def _usd(nanos: float) -> str:
    if nanos <= 0:
        return "0.00"
    usd = nanos / NANOS
    decimals = max(2, DIGITS - 1 - math.floor(math.log10(usd)))
    return f"{Decimal(usd):.{decimals}f}"


def _seconds(seconds: float | None) -> str:
    return NONE if seconds is None else f"{seconds:.2f}"


def _tokens(row: Row, *, output: bool) -> str:
    count = row.tokens(output=output)
    return NONE if count is None else f"{count:.0f}"


def _share(share: float) -> float:
    return round(share, SHARE_DECIMALS)


def _rounded(number: float | None) -> float | None:
    return None if number is None or math.isinf(number) else round(number, 3)
