"""Accounts over every database."""

from tests.accounts.printing import tables
from tests.storage.conftest import postgres, pytest_asyncio_loop_factories, url

__all__ = ["postgres", "pytest_asyncio_loop_factories", "tables", "url"]
