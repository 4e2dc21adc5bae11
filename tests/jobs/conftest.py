"""Jobs over every database."""

from tests.accounts.printing import tables
from tests.storage.conftest import postgres, pytest_asyncio_loop_factories, storage, url

__all__ = ["postgres", "pytest_asyncio_loop_factories", "storage", "tables", "url"]
