"""Both event loops for all tests here, and certificates."""

import asyncio
import ssl
from collections.abc import Callable, Mapping

import pytest
import trustme
import uvloop

from tests.egress.peers import NAME


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The service's own, and the one that it has where there is no uvloop."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Whom the gateway trusts."""
    return trustme.CA()


@pytest.fixture(scope="session")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """The gateway's side."""
    return ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())


@pytest.fixture(scope="session")
def serving(authority: trustme.CA) -> ssl.SSLContext:
    """The side of a peer that is `NAME`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)
    return context
