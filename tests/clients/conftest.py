"""One gateway for each module of tests: every test runs over both of its edges."""

import random
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import httpx
import pytest
import pytest_asyncio

from tests.clients.gateway import EDGES, KEY, LIMIT_S, Gateway
from tests.clients.gateway import gateway as running_gateway


@pytest.fixture(scope="module")
def no_chance() -> Iterator[None]:
    """As that of all tests, for what a module's tests have in common."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "random", lambda: 0.0)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


@pytest.fixture(params=EDGES)
def edge(request: pytest.FixtureRequest) -> str:
    """The service's own port, or the shim before it."""
    name: str = request.param
    return name


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(gateway: Gateway) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """An HTTP client with the key for each edge."""
    context = ssl.create_default_context()  # Making it costs more than most tests.
    async with AsyncExitStack() as stack:
        found = {}
        for edge, url in gateway.urls.items():
            client = httpx.AsyncClient(
                base_url=url,
                headers={"authorization": f"Bearer {KEY}"},
                timeout=LIMIT_S,
                verify=context,
            )
            found[edge] = await stack.enter_async_context(client)
        yield found


@pytest.fixture
def http(clients: dict[str, httpx.AsyncClient], edge: str) -> httpx.AsyncClient:
    """A client of the edge."""
    return clients[edge]


@pytest.fixture
def url(gateway: Gateway, edge: str) -> str:
    """The edge's address, without a path."""
    return gateway.urls[edge]
