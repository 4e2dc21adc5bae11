"""URLs and what they lead to."""

import socket
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.tools.destinations import (
    Destination,
    InvalidUrl,
    destination_of,
    host_and_port_of,
)


def named(host: str, target: str = "/", port: int = 443, scheme: str = "https") -> Destination:
    """A destination with a name."""
    return Destination(scheme, host, port, target, is_literal=False, address=None)


def literal(host: str, *, is_standard: bool) -> Destination:
    """A destination that is an address."""
    address = ip_address(host) if is_standard else None
    return Destination("https", host, 443, "/", is_literal=True, address=address)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example", named("a.example")),
        ("HTTPS://A.Example./", named("a.example")),
        ("https://a.example?q", named("a.example", "/?q")),
        ("https://a.example/?a=b/c?d@e:f", named("a.example", "/?a=b/c?d@e:f")),
        ("https://a.example//b/../c;d,e%2F%20", named("a.example", "//b/../c;d,e%2F%20")),
        ("https://a.example/ü?ж=1", named("a.example", "/%C3%BC?%D0%B6=1")),
        ("https://a.example:8443/b", named("a.example", "/b", 8443)),
        ("http://a.example/b", named("a.example", "/b", 80, "http")),
        ("https://my_tool.example/", named("my_tool.example")),
        ("https://xn--bcher-kva.example/", named("xn--bcher-kva.example")),
        ("https://Bücher.example/", named("xn--bcher-kva.example")),
        ("https://faß.example/", named("xn--fa-hia.example")),
        ("https://例え。テスト/", named("xn--r8jz45g.xn--zckzah")),
        ("https://1.2.3.4.example/", named("1.2.3.4.example")),
        ("https://0x7f/", literal("0x7f", is_standard=False)),
        ("https://127.1/", literal("127.1", is_standard=False)),
        ("https://127.0.0.1./", literal("127.0.0.1", is_standard=True)),
        ("https://a.0x/", literal("a.0x", is_standard=False)),
        ("https://[0:0::1]/", literal("::1", is_standard=True)),
        ("https://[FE80::1%25lo]/", literal("FE80::1%25lo", is_standard=False)),
    ],
)
def test_a_url_is_read_in_one_way(url, expected):
    assert destination_of(url) == expected


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://a.example:443/", "a.example"),
        ("http://a.example:80/", "a.example"),
        ("https://a.example:80/", "a.example:80"),
        ("http://[::1]:8080/", "[::1]:8080"),
    ],
)
def test_the_host_header_has_a_port_only_if_it_is_not_the_schemes(url, authority):
    assert destination_of(url).authority == authority


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "a.localhost",
        "printer.local",
        "redis",
        "a.b.internal",
        "a.home.arpa",
        "b.onion",
    ],
)
def test_names_that_mean_something_nearby_are_told_from_others(text):
    assert destination_of(f"https://{text}/").is_nearby
    assert not destination_of(f"https://{text}.example.com/").is_nearby
    assert not destination_of(f"https://x{text.replace('.', '-')}.com/").is_nearby


@given(
    st.text(max_size=80), st.sampled_from(["", "https://", "https://a.example", "https://[::1]"])
)
def test_any_text_is_read_or_refused(text, start):
    try:
        found = destination_of(start + text)
    except InvalidUrl:
        return

    assert found.host.isascii()
    assert found.target.isascii()
    assert found.target.startswith("/")
    assert not set(" \t\r\n#\\") & set(found.authority + found.target)


@given(
    st.lists(
        st.one_of(
            st.integers(0, 2**33).map(str),
            st.integers(0, 2**33).map(hex),
            st.integers(0, 2**33).map("0{:o}".format),
            st.sampled_from(["", "0x", "00", "08", "x", "1a", "0xg"]),
        ),
        min_size=1,
        max_size=5,
    ).map(".".join)
)
def test_whatever_the_system_takes_for_an_address_is_known_as_one(host):
    try:
        packed = socket.inet_aton(host)
    except OSError:
        return

    found = destination_of(f"https://{host}/")

    assert found.is_literal
    assert found.address is None or found.address.packed == packed


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("A.Example", ("a.example", None)),
        ("a.example.:8080", ("a.example", 8080)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("FD00::1", ("fd00::1", None)),
        ("[fd00:0::1]:80", ("fd00::1", 80)),
    ],
)
def test_an_operators_entry_is_read_as_a_urls_host_is(entry, expected):
    assert host_and_port_of(entry) == expected
