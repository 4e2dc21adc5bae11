"""URLs to destinations, by rules of our own. No I/O.

Attacks on filters live from two readers of one URL: what the filter takes for a name is an address to the client, or
the other way round. So a URL is read here once, strictly, and whatever has more than one reading is refused; all that
follows (resolving, connecting, TLS, the request's head) uses the parts found here and never the text again.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote

import idna

from trunkline_server.tools.addresses import Address

MAX_URL_CHARS: Final = 4096
MAX_HOST_CHARS: Final = 253  # What DNS can carry; IDNA's cost grows with the square of it.
DEFAULT_PORTS: Final = {"https": 443, "http": 80}

_URL: Final = re.compile(r"(https?)://([^/?]+)(.*)", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(?::([1-9][0-9]{0,4}))?")
# Printable, and nothing that readers disagree on: white space and control characters, of Unicode's too, are taken out
# by some, a backslash is a slash to browsers, user information hides the host, a fragment is never sent.
_DISPUTED: Final = re.compile(r"[\s\x00-\x20\x7f-\xa0\\#]")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# A host whose last label is one of these is an address to inet_aton and to browsers, in whatever notation.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Names that mean something nearby by definition: RFC 6761, 6762, 7686, 8375, and ICANN's resolution on .internal.
_NEARBY: Final = (".localhost", ".local", ".internal", ".home.arpa", ".onion")
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))


class InvalidUrl(Exception):
    """It is no absolute http(s) URL, or has more than one reading. Without the URL's text, which may hold secrets."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a URL leads.

    Attributes:
        scheme: https or http.
        host: a name in lower case as DNS has it, without the last dot; or an address as its standard writes it; or, if
            `is_literal` and there is no `address`, one in another notation.
        target: path and query in ASCII; begins with a slash.
        is_literal: the host is an IP address, however written.
        address: the host, if it is an IP address in the one notation that all readers agree on.
    """

    scheme: str
    host: str
    port: int
    target: str
    is_literal: bool
    address: Address | None

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_nearby(self) -> bool:
        """Is it a name that means something on this machine or network, whatever DNS says?"""
        return not self.is_literal and ("." not in self.host or self.host.endswith(_NEARBY))


def destination_of(url: str) -> Destination:
    """Read an absolute URL.

    Raises:
        InvalidUrl
    """
    if len(url) > MAX_URL_CHARS or _DISPUTED.search(url):
        raise InvalidUrl("too long, or with characters that URLs don't have")
    found = _URL.fullmatch(url)
    if found is None:
        raise InvalidUrl("no absolute http(s) URL")
    scheme, authority, target = found.groups()
    scheme = scheme.lower()
    host, port, is_literal, address = _host_and_port(authority)
    if not target.startswith("/"):
        target = f"/{target}"
    try:
        target = quote(target, safe=_PRINTABLE)
    except UnicodeEncodeError:
        raise InvalidUrl("half a character") from None
    return Destination(scheme, host, port or DEFAULT_PORTS[scheme], target, is_literal, address)


def host_and_port_of(entry: str) -> tuple[str, int | None]:
    """Read an operator's "HOST" or "HOST:PORT"; IPv6 addresses in brackets if there is a port.

    Raises:
        InvalidUrl
    """
    is_bare_v6 = entry.count(":") > 1 and not entry.startswith("[")
    if _DISPUTED.search(entry):
        raise InvalidUrl("characters that hosts don't have")
    host, port, is_literal, address = _host_and_port(f"[{entry}]" if is_bare_v6 else entry)
    if is_literal and address is None:
        raise InvalidUrl("an address in a notation that is not its standard's")
    return host, port


def _host_and_port(authority: str) -> tuple[str, int | None, bool, Address | None]:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise InvalidUrl("no host and port")
    text, digits = found.groups()
    port = int(digits) if digits else None
    if port is not None and port > 0xFFFF:
        raise InvalidUrl("no such port")
    if text.startswith("["):
        host, address = _bracketed(text[1:-1])
        return host, port, True, address
    host = _name(text)
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return host, port, False, None
    try:
        return host, port, True, IPv4Address(host)
    except AddressValueError:
        return host, port, True, None


def _bracketed(text: str) -> tuple[str, Address | None]:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise InvalidUrl("no IPv6 address") from None
    return (text, None) if address.scope_id is not None else (str(address), address)


def _name(text: str) -> str:
    """A host name as DNS has it. Unicode is mapped as browsers do, before anything is asked of the result."""
    if len(text) > MAX_HOST_CHARS + 1:
        raise InvalidUrl("the host is too long")
    if text.isascii():
        name = text.lower()
    else:
        try:
            name = idna.encode(text, uts46=True, std3_rules=True).decode("ascii").lower()
        except UnicodeError:
            raise InvalidUrl("no host name") from None
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > MAX_HOST_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidUrl("no host name")
    return name
