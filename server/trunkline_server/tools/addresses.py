"""Which IP addresses belong to somebody on the public Internet.

Python's own `is_global` is no answer: it calls multicast, NAT64 and 6to4 forms of private addresses and a cloud's
metadata server global. The rule here is turned around: what is not plain unicast of the public Internet is not
public. Several IPv6 forms carry an IPv4 address, and whoever relays them goes to that one; so it must be public too.

Source: the IANA registries of special-purpose IPv4 and IPv6 addresses, read 2026-11-22.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address

_NOT_PUBLIC_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # "This network"; Linux takes 0.0.0.0 for the machine itself.
        "10.0.0.0/8",
        "100.64.0.0/10",  # Behind carriers' NAT; a cloud keeps its metadata at 100.100.100.200.
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent: a public number, and never the public's.
        "169.254.0.0/16",  # Link-local, and most clouds' metadata.
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocol assignments; a cloud keeps its metadata at 192.0.0.192.
        "192.0.2.0/24",  # Documentation, as 198.51.100.0/24 and 203.0.113.0/24.
        "192.31.196.0/24",  # AS112, as 192.175.48.0/24: anycast sinks, nobody's.
        "192.52.193.0/24",  # Multicast tunnels.
        "192.88.99.0/24",  # Relays of 6to4.
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",  # Benchmarks.
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # Multicast.
        "240.0.0.0/4",  # Reserved, and broadcast.
    )
)
_UNICAST_V6: Final = IPv6Network("2000::/3")  # All that was ever given out.
_NOT_PUBLIC_V6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments: benchmarks, identifiers that route nowhere.
        "2001:db8::/32",  # Documentation, as 3fff::/20.
        "2620:4f:8000::/48",  # AS112.
        "3fff::/20",
    )
)
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_COMPATIBLE: Final = IPv6Network("::/96")  # :: and ::1 carry 0.0.0.0 and 0.0.0.1.
# 64:ff9b:1::/48 is not here: where in it the IPv4 address sits is each network's own choice (RFC 8215, RFC 6052), so
# nobody else can take it out. It is not public.
_NAT64: Final = IPv6Network("64:ff9b::/96")
_6TO4: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_ISATAP: Final = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")  # How interface identifiers begin.


def is_public(address: Address) -> bool:
    """May a connection to it be made for a stranger?"""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address.scope_id is not None:  # Something on a link of this machine.
        return False
    is_carrier = any(
        address in network for network in (_MAPPED, _COMPATIBLE, _NAT64, _6TO4, _TEREDO)
    )
    is_unicast = address in _UNICAST_V6 and not any(
        address in network for network in _NOT_PUBLIC_V6
    )
    return (is_carrier or is_unicast) and all(is_public(inner) for inner in _carried(address))


def _carried(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses in it that packets may be relayed to."""
    packed = address.packed
    inner = []
    if address in _MAPPED or address in _COMPATIBLE or address in _NAT64:
        inner.append(packed[12:])
    elif address in _6TO4:
        inner.append(packed[2:6])
    elif address in _TEREDO:
        # The server as it is, the client with all bits turned over (RFC 4380).
        inner.extend((packed[4:8], bytes(byte ^ 0xFF for byte in packed[12:])))
    if packed[8:12] in _ISATAP:
        inner.append(packed[12:])
    return [IPv4Address(four) for four in inner]
