"""Lists of hosts that an operator allows something to: HOST, for its usual port, or HOST:PORT."""

from collections.abc import Sequence
from typing import Final

from trunkline_server.tools.destinations import (
    DEFAULT_PORTS,
    InvalidUrl,
    destination_of,
    host_and_port_of,
)

MAX_HOSTS: Final = 256


def hosts_of(entries: object) -> frozenset[str]:
    """The hosts that a list names.

    Raises:
        ValueError: it is no such list, or names none.
    """
    if (
        isinstance(entries, str)
        or not isinstance(entries, Sequence)
        or not 1 <= len(entries) <= MAX_HOSTS
    ):
        raise ValueError(f"must be a list of 1 to {MAX_HOSTS} hosts")
    found = set()
    for entry in entries:
        try:
            host, port = host_and_port_of(str(entry))
        except InvalidUrl as error:
            raise ValueError("must be HOST or HOST:PORT, each") from error
        found.add(f"{host}:{port}" if port else host)
    return frozenset(found)


def is_at(url: str, hosts: frozenset[str]) -> bool:
    """Does a URL lead to one of these?"""
    try:
        to = destination_of(url)
    except InvalidUrl:
        return False
    is_usual = to.port == DEFAULT_PORTS[to.scheme]
    return (is_usual and to.host in hosts) or f"{to.host}:{to.port}" in hosts
