"""Which addresses are this machine's own."""

import socket
from ipaddress import ip_address

import pytest

from trunkline_server.tools.egress import is_own


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1", True),
        ("93.184.216.34", False),
        ("2606:4700::1111", False),
    ],
)
def test_addresses_of_this_machine_are_known_without_asking_anybody(text, expected):
    assert is_own(ip_address(text)) == expected


def test_an_address_that_this_machine_has_beside_others_is_its_own_too():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.9.9.9", 0))
        except OSError:
            pytest.skip("this system's loopback has one address only")

    assert is_own(ip_address("127.9.9.9"))
