"""Which addresses are the public's, held against Python's own tables and against what is known of the Internet."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trunkline_server.tools.addresses import is_public

# What Python calls global and is nobody's to connect to.
NOT_FOR_STRANGERS = [
    IPv4Network(text)
    for text in (
        "168.63.129.16/32",
        "192.0.0.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.175.48.0/24",
        "224.0.0.0/4",
    )
]
CARRIERS = [
    IPv6Network(text)
    for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "2001::/32", "2002::/16")
]


@given(st.ip_addresses(v=4))
@example(IPv4Address("100.100.100.200"))
@example(IPv4Address("192.0.0.9"))
@example(IPv4Address("224.0.0.1"))
def test_an_ipv4_address_is_public_if_it_is_global_and_nothing_special(address):
    is_special = any(address in network for network in NOT_FOR_STRANGERS)

    assert is_public(address) == (address.is_global and not is_special)


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_that_carries_no_other_is_public_only_if_it_is_global(address):
    if is_public(address) and not any(address in network for network in CARRIERS):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_site_local


@given(st.ip_addresses(v=4))
@example(IPv4Address("169.254.169.254"))
@example(IPv4Address("8.8.8.8"))
def test_a_form_that_carries_an_ipv4_address_is_as_public_as_that(inner):
    four = int(inner)
    public = int(IPv4Address("8.8.8.8"))
    forms = [
        0xFFFF << 32 | four,
        four,
        0x64FF9B << 96 | four,
        0x2002 << 112 | four << 80,
        0x20010000 << 96 | four << 64 | (public ^ 0xFFFFFFFF),
        0x20010000 << 96 | public << 64 | (four ^ 0xFFFFFFFF),
        0x26064700 << 96 | 0x5EFE << 32 | four,
        0x26064700 << 96 | 0x0200_5EFE << 32 | four,
    ]

    assert [is_public(IPv6Address(form)) for form in forms] == [is_public(inner)] * len(forms)


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "8.8.8.8",
        "93.184.216.34",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2606:4700:4700::1111",
        "2a00:1450:4001:81b::200e",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ],
)
def test_the_public_is_not_denied(text):
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "64:ff9b:1::8.8.8.8",
        "64:ff9b:1:808:8:800::",
        "::ffff:0:8.8.8.8",
        "2606:4700:4700::1111%1",
        "fec0::1",
        "2001:2::1",
        "3fff::1",
        "5f00::1",
    ],
)
def test_what_nobody_can_judge_or_was_never_given_out_is_not_public(text):
    assert not is_public(ip_address(text))
