"""Where tables go: into the record of a long run where there is one, else to the end of the output."""

import pytest

from tests.faults.tables import TABLES, Tables


@pytest.fixture(scope="session")
def tables(tables: Tables, pytestconfig: pytest.Config) -> Tables:
    return pytestconfig.stash.get(TABLES, tables)
