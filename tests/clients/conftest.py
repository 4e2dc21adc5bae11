"""One gateway for each module of tests: every test runs over both of its edges."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.clients.gateway import EDGES, Gateway
from tests.clients.gateway import gateway as running_gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


@pytest.fixture(params=EDGES)
def edge(request: pytest.FixtureRequest) -> str:
    """The service's own port, or the shim before it."""
    name: str = request.param
    return name


@pytest.fixture
def url(gateway: Gateway, edge: str) -> str:
    """The edge's address, without a path."""
    return gateway.urls[edge]
