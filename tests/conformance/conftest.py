"""The gateway that plays the cases, a runner for each client, and the table of what came of them."""

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import pytest
import trustme
from grpc import ssl_server_credentials

from tests.conformance.languages import COLUMNS, Column, Language, Runner
from tests.conformance.server import Gateway, gateway_in_thread

FOLDER: Final = Path(__file__).parent
KNOWN_FAILING: Final = FOLDER / "known_failing.yaml"
CELL: Final = pytest.StashKey[tuple[str, str]]()
"""Of a test that is a cell of the table: its case and its client."""
WORDS: Final = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}


_CERTIFICATE = tuple[Path, trustme.CA]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", action="store_true", help="print cases by clients at the end")


def known_failing() -> dict[str, dict[str, str]]:
    """For each client the cases that it is known to fail, each with the reason."""
    return msgspec.yaml.decode(KNOWN_FAILING.read_bytes(), type=dict[str, dict[str, str]])


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> _CERTIFICATE:
    """The roots that clients are given, as a file, and who signs."""
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "roots.pem"
    authority.cert_pem.write_to_path(str(path))
    return path, authority


@pytest.fixture(scope="session")
def gateway(certificate: _CERTIFICATE) -> Iterator[Gateway]:
    issued = certificate[1].issue_cert("localhost", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    with gateway_in_thread(ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])) as up:
        yield up


@cache
def not_built(language: Language) -> str:
    """Builds a client; the reason where that failed, else nothing."""
    try:
        for command in language.build:
            language.run(command)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


@pytest.fixture(scope="session")
def build() -> Callable[[Language], None]:
    """Builds a client, or skips the test where a tool for that is missing, but not in CI."""

    def build_or_skip(language: Language) -> None:
        if language.missing_tools:
            reason = f"{language.name}: {', '.join(language.missing_tools)} not found"
            if os.environ.get("CI"):
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        if reason := not_built(language):
            pytest.fail(f"{language.name} was not built: {reason}", pytrace=False)

    return build_or_skip


@pytest.fixture(scope="session")
def runner_of(build: Callable[[Language], None]) -> Iterator[Callable[[Column], Runner]]:
    with ExitStack() as running:

        @cache
        def started(column: Column) -> Runner:
            return running.enter_context(Runner(column))

        def runner(column: Column) -> Runner:
            build(column.language)
            return started(column)

        yield runner


# What each test of a case and a client came to, for the table.
_results: dict[tuple[str, str], str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    cell = item.stash.get(CELL, None)
    if cell is not None and (report.when == "call" or not report.passed):
        word = "known" if hasattr(report, "wasxfail") else WORDS[report.outcome]
        _results[cell] = word
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table. A column whose toolchain is missing says so in every cell."""
    if not _results or not terminalreporter.config.getoption("--table"):
        return
    columns = [column.name for column in COLUMNS if any(column.name == c for _, c in _results)]
    cases = list(dict.fromkeys(case for case, _ in _results))
    width = max(map(len, cases))
    terminalreporter.write_line("")
    for row in ("case", *cases):
        cells = columns if row == "case" else [_results.get((row, c), "") for c in columns]
        line = "  ".join(f"{cell:<{len(c)}}" for cell, c in zip(cells, columns, strict=True))
        terminalreporter.write_line(f"{row:<{width}}  {line}".rstrip())
    counts = Counter(_results.values())
    terminalreporter.write_line(
        f"{len(cases)} cases, {len(columns)} clients: "
        + ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    )
