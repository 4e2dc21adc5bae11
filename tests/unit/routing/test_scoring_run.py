"""Scoring runs: records that are what their ids say."""

import msgspec
import pytest

from trunkline_server.routing.scoring_run import (
    MAX_FILE_BYTES,
    Cell,
    DataSet,
    ScoringRun,
    Timing,
    UnusableRun,
    encoded,
    load,
    sealed,
)


def run(*cells: Cell, **more: object) -> ScoringRun:
    """Of these cells, without an id."""
    return msgspec.convert(
        {
            "time": "2026-11-22T10:00:00Z",
            "data_set": DataSet("questions", "0" * 64),
            "judge": "exact, version 1",
            "cells": list(cells),
            **more,
        },
        ScoringRun,
    )


CELL = Cell("openai/gpt-5", 0.75, n=40, low=0.6, high=0.86)


def test_a_run_that_was_stored_is_the_same_again(tmp_path):
    made = sealed(run(CELL, Cell("a", 0.5, "de", "eu"), timings=[Timing("a", [512.5, 80.0], 2)]))
    path = tmp_path / "scores.json"
    path.write_bytes(encoded(made))

    assert load(path) == made
    assert made.id.startswith("run_")


def test_the_same_content_has_the_same_id_and_any_other_another():
    made = sealed(run(CELL))

    assert sealed(run(CELL)).id == made.id
    assert sealed(run(CELL, source="elsewhere")).id != made.id
    assert sealed(made).id == made.id


def test_a_record_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "scores.json"
    path.write_bytes(encoded(sealed(run(CELL))).replace(b"0.75", b"0.85"))

    with pytest.raises(UnusableRun) as caught:
        load(path)

    assert "was changed: its content has the id run_" in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([CELL, CELL], "cells[1]: openai/gpt-5 is there twice"),
        ([Cell("a", 0.5, "German")], "cells[0].language: 'German' is no primary language subtag"),
        ([Cell("a", 0.5, "de", "EU West")], "cells[0].region: 'EU West' is no region"),
        ([Cell("a", 0.5, low=0.4)], "cells[0]: low and high go together"),
        ([Cell("a", 0.5, low=0.6, high=0.7)], "cells[0]: the mean is not between low and high"),
    ],
    ids=["twice", "language", "region", "half", "outside"],
)
def test_what_contradicts_itself_is_refused_with_its_place(cells, problem):
    with pytest.raises(UnusableRun) as caught:
        sealed(run(*cells))

    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no scoring run"),
        (b"[]", "is no scoring run"),
        (b'{"id":"run_1"}', "is no scoring run: Object missing required field"),
        (b"\xff\xfe", "is no scoring run"),
        (b" " * (MAX_FILE_BYTES + 1), "is larger than"),
        (
            encoded(run(CELL)).replace(b'"mean": 0.75', b'"mean": 7'),
            "is no scoring run: Expected `float` <= 1.0 - at `$.cells[0].mean`",
        ),
        (
            encoded(run(CELL)).replace(b'"judge"', b'"jury"'),
            "is no scoring run: Object contains unknown field `jury`",
        ),
    ],
    ids=["empty", "list", "little", "binary", "large", "seven", "unknown"],
)
def test_what_is_no_run_is_refused_with_the_reason(tmp_path, content, problem):
    path = tmp_path / "scores.json"
    path.write_bytes(content)

    with pytest.raises(UnusableRun) as caught:
        load(path)

    assert problem in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UnusableRun, match=r"none\.json can't be read: No such file"):
        load(tmp_path / "none.json")
