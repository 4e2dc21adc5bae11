"""The only door for addresses that a user can influence.

Whoever names a URL chooses where the gateway connects to, and the gateway stands where its user doesn't: beside the
operator's databases and the cloud's metadata. So a URL is read once and strictly, a name is resolved once, all its
addresses are checked, and the connection goes to one that was; the name is left for TLS to verify. Redirects are not
followed, nothing is taken from the environment, nothing is tried twice.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from trunkline_server.tools.addresses import Address, is_public
from trunkline_server.tools.destinations import (
    Destination,
    InvalidUrl,
    destination_of,
    host_and_port_of,
)
from trunkline_server.tools.exchange import EgressError, EgressResponse, Exchange, Reason, family
from trunkline_server.tools.resolver import Resolve, SystemResolver

__all__ = ["Egress", "EgressError", "EgressResponse", "Reason", "Resolve"]

PORTS: Final = {"https": (443, 8443), "http": (80, 8080)}
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
MAX_ANSWERS: Final = 256  # Addresses of one name; each is checked.
MAX_REQUEST_HEADER_BYTES: Final = 32 * 1024

# They frame the message or belong to the connection, so they are ours to set.
_OWN_HEADERS: Final = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# One is reserved, the other leads nowhere, so no machine has them.
_NOBODYS: Final[Mapping[int, Address]] = {
    4: IPv4Address("240.0.0.1"),
    6: IPv6Address("100::1"),
}


class Egress:
    """Makes requests to URLs that users influence.

    Args:
        allowed_hosts: the operator's "HOST" (any port) or "HOST:PORT". They need neither a public address, nor a name,
            nor one of the usual ports, nor https.
        tls: verifies certificates and names.

    Raises:
        ValueError: an allowed host is none, or `tls` does not verify.
    """

    def __init__(
        self,
        allowed_hosts: Sequence[str] = (),
        *,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._allowed = frozenset(_allowed(entry) for entry in allowed_hosts)
        self._tls = tls or ssl.create_default_context()
        self._resolve = resolve or SystemResolver()
        if self._tls.verify_mode is not ssl.CERT_REQUIRED or not self._tls.check_hostname:
            raise ValueError("tls must verify certificates and host names")

    def check(self, url: str, *, https_only: bool = True) -> None:
        """Would a request be tried? Asks nobody, so a name may still turn out to be denied.

        Args:
            https_only: False admits http too, for addresses that are handed on to be fetched by others.

        Raises:
            EgressError: URL_INVALID, ADDRESS_DENIED.
        """
        self._destination(url, https_only)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes = b"",
        until_s: float,
        max_bytes: int,
    ) -> EgressResponse:
        """Make one request and read its response to the end. A redirect is a response like any other.

        Cancelled, it closes the connection at once.

        Args:
            headers: those that frame a message or name its host are ours, and are left out.
            until_s: an instant of the loop's clock.
            max_bytes: of the response's body.

        Raises:
            EgressError
        """
        destination = self._destination(url, https_only=True)
        if method not in METHODS:
            raise EgressError("URL_INVALID")
        lines = _header_lines(destination, headers)
        if asyncio.get_running_loop().time() >= until_s:
            raise EgressError("TIMEOUT")
        exchange = Exchange(destination, self._tls)
        try:
            async with asyncio.timeout_at(until_s):
                addresses = await self._addresses(destination)
                return await exchange.send(addresses, method, lines, content, max_bytes)
        except TimeoutError:
            raise exchange.error("TIMEOUT") from None
        finally:
            exchange.close()

    def _destination(self, url: str, https_only: bool) -> Destination:
        try:
            destination = destination_of(url)
        except InvalidUrl as error:
            raise EgressError("URL_INVALID") from error
        if self._is_allowed(destination):
            return destination
        if destination.is_literal or destination.is_nearby:
            raise EgressError("ADDRESS_DENIED")
        if https_only and destination.scheme != "https":
            raise EgressError("URL_INVALID")
        if destination.port not in PORTS[destination.scheme]:
            raise EgressError("URL_INVALID")
        return destination

    def _is_allowed(self, destination: Destination) -> bool:
        host = destination.host
        return not self._allowed.isdisjoint(((host, None), (host, destination.port)))

    async def _addresses(self, destination: Destination) -> Sequence[Address]:
        """Where to connect to; never empty. All of them were checked, unless the host is allowed."""
        if destination.address is not None:  # No others than allowed ones come here.
            return [destination.address]
        try:
            found = await self._resolve(destination.host, destination.port)
        except OSError as error:
            raise EgressError("UNRESOLVED") from error
        if not found:
            raise EgressError("UNRESOLVED")
        if len(found) > MAX_ANSWERS:
            raise EgressError("ADDRESS_DENIED")
        try:
            addresses = [ip_address(text) for text in dict.fromkeys(found)]
        except ValueError as error:
            raise EgressError("ADDRESS_DENIED") from error
        # One bad answer spoils all: whoever mixes them hopes that it will be the one taken.
        if not self._is_allowed(destination) and not all(
            is_public(address) and not is_own(address) for address in addresses
        ):
            raise EgressError("ADDRESS_DENIED")
        return addresses


def is_own(address: Address) -> bool:
    """Is it this machine's? The system lets a socket have such addresses only, and tells without sending anything.

    Where it lets sockets have any address (Linux's ip_nonlocal_bind), nothing can be told, and the answer is no.
    """
    return _can_have(address) and not _can_have(_NOBODYS[address.version])


def _can_have(address: Address) -> bool:
    try:
        with socket.socket(family(address), socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _allowed(entry: str) -> tuple[str, int | None]:
    try:
        return host_and_port_of(entry)
    except InvalidUrl as error:
        raise ValueError(f"{entry!r} is no HOST or HOST:PORT: {error}") from error


def _header_lines(destination: Destination, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What goes out. Raises: EgressError."""
    lines = {
        "host": destination.authority,
        "connection": "close",
        "accept-encoding": "identity",  # What is not compressed can't grow in our hands.
        "accept": "*/*",
        "user-agent": "trunkline",
    }
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise EgressError("URL_INVALID")
        if name.lower() not in _OWN_HEADERS:
            lines[name.lower()] = value.strip(" \t")
    if sum(len(name) + len(value) for name, value in lines.items()) > MAX_REQUEST_HEADER_BYTES:
        raise EgressError("URL_INVALID")
    return list(lines.items())
