"""Rows of an evaluation, made without asking anybody."""

from collections.abc import Sequence
from typing import Any

from trunkline_server.scoring.panel_trial import Answer, Row


def answered(question: str, is_right: bool | None = True, **more: Any) -> Answer:
    """An answer that came."""
    return Answer("m", "en", is_right, 100.0, question=question, **{"seconds": 1.0, **more})


def failed(question: str) -> Answer:
    """One that did not."""
    return Answer("m", "en", question=question, problem="UPSTREAM_TIMEOUT: too late")


def row(
    name: str, marks: Sequence[bool], *, is_panel: bool = False, unasked: int = 0, **more: Any
) -> Row:
    """One that gave an answer to each question."""
    answers = [answered(f"q{n}", is_right, **more) for n, is_right in enumerate(marks)]
    return Row(name, is_panel, answers, unasked)
