"""Every connection that this process tries, seen where Python hands it to the system."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from ipaddress import ip_address
from typing import Any

_watching: list[list[tuple[str, int]]] = []


@contextmanager
def connections() -> Iterator[list[tuple[str, int]]]:
    """Addresses and ports of TCP connections that were tried meanwhile.

    Those that would leave the machine are refused on the way, so nothing reaches the network.
    """
    _install()
    tried: list[tuple[str, int]] = []
    _watching.append(tried)
    try:
        yield tried
    finally:
        _watching.remove(tried)


@cache
def _install() -> None:
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not _watching:
        return
    connecting, address = arguments
    if connecting.family not in (socket.AF_INET, socket.AF_INET6):
        return
    if connecting.type & socket.SOCK_STREAM != socket.SOCK_STREAM:
        return  # UDP: asks for a route and sends nothing.
    for tried in _watching:
        tried.append((address[0], address[1]))
    if not ip_address(address[0]).is_loopback:
        raise ConnectionRefusedError("tests don't reach the network")
