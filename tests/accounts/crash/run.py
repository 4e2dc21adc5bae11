"""The long version of the tests here, as one run that can be broken off and taken up again: see `tests.faults.run`.

Arguments are pytest's: `-k sqlite-7` runs a part.
"""

import sys
from typing import Any

import pytest

from tests.faults.run import Recorder
from tests.faults.stamp import Stamp
from tests.faults.tables import TABLES, Tables


class Record:
    """Tables that the recorder reads, printed in the end."""

    def __init__(self) -> None:
        self._tables = Tables()

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[TABLES] = self._tables

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for line in self._tables.lines():
            terminalreporter.write_line(line)


def main() -> None:
    """Exits with pytest's status."""
    options = ["-m", "slow or not slow", "-o", "faulthandler_timeout=0"]
    plugins = [Record(), Recorder(Stamp.now())]
    sys.exit(pytest.main(["tests/accounts/crash", *options, *sys.argv[1:]], plugins))


if __name__ == "__main__":
    main()
