"""The long version of all tests here, as one run that can be broken off and taken up again.

Each case leaves a line of JSON in `build/faults/<commit>/results.jsonl`: what it was of, how it ended, how long it took
and what it counted. A case that passed is not run again for the same tree; what it counted is in the tables at the end
all the same. Arguments are pytest's: `-k timers` runs a part.
"""

import json
import sys
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.stamp import ROOT, Stamp
from tests.faults.tables import TABLES, Row, Table

RESULTS: Final = "results.jsonl"


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """All whole lines, the oldest first. A run that was killed may have left half of one."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


class Recorder:
    """Leaves out what is done, writes down what is done now."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._path = stamp.folder / RESULTS
        self._done: dict[str, dict[str, Any]] = {}
        for line in lines_of(self._path):
            if line["outcome"] == "passed" and not line["tree_changed"]:
                self._done[line["case"]] = line
            else:
                self._done.pop(line["case"], None)
        self._earlier = 0
        self._seconds = 0.0
        self._is_stale = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        chosen = [item for item in items if not _is_short(item)]
        earlier = [item for item in chosen if item.nodeid in self._done]
        config.hook.pytest_deselected(items=[i for i in items if _is_short(i) or i in earlier])
        items[:] = [item for item in chosen if item not in earlier]
        self._earlier = len(earlier)
        for item in earlier:
            line = self._done[item.nodeid]
            self._seconds += line["duration_s"]
            for row in line["rows"]:
                table: Table = config.stash[TABLES].table(row["title"], tuple(row["columns"]))
                table.add(row["name"], *row["cells"])
        config.stash[TABLES].taken()  # They are written down already.

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "call" or not report.passed:
            self._write(report, item.config.stash[TABLES].taken())
        return report

    def _write(self, report: pytest.TestReport, rows: list[Row]) -> None:
        self._seconds += report.duration
        is_stale = Stamp.now() != self._stamp
        self._is_stale |= is_stale
        line = {
            "commit": self._stamp.commit,
            "changes": self._stamp.changes,
            "is_dirty": bool(self._stamp.changes),
            "tree_changed": is_stale,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": self._stamp.python,
            "cpus": self._stamp.cpus,
            "case": report.nodeid,
            "outcome": report.outcome,
            "duration_s": round(report.duration, 3),
            "rows": [
                {"title": r.title, "columns": r.columns, "name": r.name, "cells": r.cells}
                for r in rows
            ],
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self._earlier:
            session.exitstatus = pytest.ExitCode.OK
        if self._is_stale and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        stamp = self._stamp
        changed = f" with changes {stamp.changes}" if stamp.changes else ""
        for line in (
            "",
            f"commit {stamp.commit}{changed}, Python {stamp.python}, {stamp.cpus} CPUs",
            f"{self._earlier} cases were done before; {self._seconds:.0f} s altogether",
            f"written to {self._path.relative_to(ROOT)}",
        ):
            terminalreporter.write_line(line)
        if self._is_stale:
            terminalreporter.write_line(
                "The tree changed meanwhile: cases since then do not count."
            )


def _is_short(item: pytest.Item) -> bool:
    """Is it the short version of a case that has a long one?"""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and "short" in callspec.id.split("-")


def main() -> None:
    """Exits with pytest's status."""
    options = ["-m", "slow or not slow", "-o", "faulthandler_timeout=0"]
    sys.exit(pytest.main(["tests/faults", *options, *sys.argv[1:]], [Recorder(Stamp.now())]))


if __name__ == "__main__":
    main()
