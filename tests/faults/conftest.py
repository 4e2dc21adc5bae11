"""The service's own event loop for all tests here, and the tables they print at the end."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import uvloop

from tests.faults.tables import TABLES, Tables


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """As `trunkline serve` runs."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLES] = Tables()


@pytest.fixture(scope="session")
def tables(pytestconfig: pytest.Config) -> Tables:
    return pytestconfig.stash[TABLES]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A kind of fault that was to be tested and has no row makes the run fail."""
    if session.config.stash[TABLES].missing() and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash[TABLES].lines():
        terminalreporter.write_line(line)
