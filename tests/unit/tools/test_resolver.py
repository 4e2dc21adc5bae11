"""Names of this machine, looked up in threads of their own."""

import asyncio
import socket
import threading
from ipaddress import ip_address

import pytest

from trunkline_server.tools.addresses import is_public
from trunkline_server.tools.resolver import SystemResolver

LIMIT_S = 10.0
NO_NAME = f"{'a' * 64}.example"  # No label is that long, so nobody is asked.


async def test_all_addresses_of_a_name_are_found():
    found = await SystemResolver()("localhost", 443)

    assert found
    assert not any(is_public(ip_address(text)) for text in found)


async def test_a_name_that_can_not_be_is_an_os_error():
    with pytest.raises(OSError, match="no name"):
        await SystemResolver()(NO_NAME, 443)


async def test_a_lookup_that_nobody_waits_for_gives_its_place_back():
    resolve = SystemResolver(max_lookups=1)
    async with asyncio.timeout(LIMIT_S):
        for _ in range(20):
            lookup = asyncio.create_task(resolve("localhost", 443))
            await asyncio.sleep(0)
            lookup.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lookup
        found = await resolve("localhost", 443)

    assert found


async def test_no_more_names_than_allowed_are_looked_up_at_once(monkeypatch):
    resolve = SystemResolver(max_lookups=2)
    counting = threading.Lock()
    full, opened = threading.Event(), threading.Event()
    inside = most = 0

    def look_up(*_: object, **__: object) -> list[tuple[object, ...]]:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
            if inside == 2:
                full.set()
        assert opened.wait(LIMIT_S)
        with counting:
            inside -= 1
        return [(0, 0, 0, "", ("127.0.0.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with asyncio.timeout(LIMIT_S):
        lookups = [asyncio.create_task(resolve("localhost", 443)) for _ in range(20)]
        await asyncio.to_thread(full.wait, LIMIT_S)
        opened.set()
        found = await asyncio.gather(*lookups)

    assert found == [["127.0.0.1"]] * 20
    assert most == 2
