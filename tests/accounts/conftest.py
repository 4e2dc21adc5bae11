"""Accounts over every database."""

from tests.storage.conftest import postgres, pytest_asyncio_loop_factories, url

__all__ = ["postgres", "pytest_asyncio_loop_factories", "url"]
