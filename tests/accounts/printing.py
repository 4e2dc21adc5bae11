"""Tables at the end of a run: what its tests did, in numbers."""

from typing import Any

import pytest

from tests.faults.stamp import Stamp
from tests.faults.tables import Tables


class _Summary:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        stamp = Stamp.now()
        changed = f" with changes {stamp.changes}" if stamp.changes else ""
        for line in self._tables.lines():
            terminalreporter.write_line(line)
        terminalreporter.write_line("")
        terminalreporter.write_line(
            f"commit {stamp.commit}{changed}, Python {stamp.python}, {stamp.cpus} CPUs"
        )


@pytest.fixture(scope="session")
def tables(pytestconfig: pytest.Config) -> Tables:
    """Printed when all tests are done."""
    found = Tables()
    pytestconfig.pluginmanager.register(_Summary(found))
    return found
