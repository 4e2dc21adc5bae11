"""Addresses, names and URLs that must lead nowhere: written by hand where they are nasty, made where they are many."""

# ruff: noqa: RUF001 - characters that look like others are what is tested

import random
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

DENIED_V4: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
DENIED_V6: Final = (
    "::/128",
    "::1/128",
    "::ffff:0:0:0/96",  # SIIT: IPv4 translated.
    "64:ff9b:1::/48",
    "100::/64",  # Discarded.
    "2001:2::/48",  # Benchmarks.
    "2001:10::/28",  # ORCHID.
    "2001:db8::/32",
    "3fff::/20",
    "4000::/3",  # Never given out.
    "5f00::/16",  # Segment routing.
    "fc00::/7",
    "fd00:ec2::254/128",  # A cloud's metadata.
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)
METADATA: Final = (
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
)


def in_v4(network: IPv4Network, chance: random.Random) -> IPv4Address:
    """Any of its addresses."""
    return network[chance.randrange(network.num_addresses)]


def in_v6(network: IPv6Network, chance: random.Random) -> IPv6Address:
    """Any of its addresses."""
    return network[chance.randrange(network.num_addresses)]


def disguised(inner: IPv4Address) -> list[IPv6Address]:
    """The IPv6 forms that lead to an IPv4 address."""
    four = int(inner)
    public = int(IPv4Address("8.8.8.8"))
    return [
        IPv6Address(0xFFFF << 32 | four),
        IPv6Address(four),
        IPv6Address(0x64FF9B << 96 | four),
        IPv6Address(0x64FF9B0001 << 80 | four),
        IPv6Address(0x2002 << 112 | four << 80 | 1),
        IPv6Address(0x20010000 << 96 | four << 64 | (public ^ 0xFFFFFFFF)),  # Teredo's server,
        IPv6Address(0x20010000 << 96 | public << 64 | (four ^ 0xFFFFFFFF)),  # and its client.
        IPv6Address(0x2A00_1450 << 96 | 0x5EFE << 32 | four),  # ISATAP.
        IPv6Address(0x2A00_1450 << 96 | 0x0200_5EFE << 32 | four),
    ]


def denied_addresses() -> list[str]:
    """Edges and insides of every denied network, bare and disguised."""
    chance = random.Random(4)
    found: list[str] = list(METADATA)
    for text in DENIED_V4:
        network = IPv4Network(text)
        picked = (network[0], network[-1], in_v4(network, chance), in_v4(network, chance))
        for four in dict.fromkeys(picked):
            found.append(str(four))
            found.extend(str(six) for six in disguised(four))
    for text in DENIED_V6:
        wide = IPv6Network(text)
        found.extend(str(six) for six in dict.fromkeys((wide[0], wide[-1], in_v6(wide, chance))))
    found.extend(("fe80::1%1", "fe80::1%lo", "2606:4700::1111%1"))
    return list(dict.fromkeys(found))


def notations(inner: IPv4Address) -> list[str]:
    """How inet_aton, browsers and libraries may be told of one address."""
    four = int(inner)
    a, b, c, d = inner.packed
    wide = str.maketrans("0123456789.", "０１２３４５６７８９。")
    circled = str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")
    return [
        f"{a}.{b}.{c}.{d}",
        f"{a}.{b}.{c}.{d}.",
        f"{four}",
        f"{four}.",
        f"{four:#x}",
        f"{four:#X}",
        f"0{four:o}",
        f"0000000000{four:o}",
        f"{a}.{b}.{c << 8 | d}",
        f"{a}.{b << 16 | c << 8 | d}",
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a:#x}.{b}.{c}.0{d:o}",
        f"{a:#x}.{four & 0xFFFFFF}",
        f"{a:03}.{b:03}.{c:03}.{d:03}",
        f"{four + (1 << 32)}",
        f"{a + 256}.{b}.{c}.{d}",
        f"{a}.{b}.{c}.{d}.0x",
        f"x.{a}.{b}.{c}.{d}",
        f"{a}.{b}.{c}.{d}".translate(wide),
        f"{a}.{b}.{c}.{d}".translate(circled),
        f"{a}%2e{b}.{c}.{d}",
        "".join(f"%{byte:02x}" for byte in str(inner).encode()),
        f"{a}..{b}.{c}.{d}",
        f"{a}.{b}.{c}.{d}%00.example.com",
        f"[{inner}]",
        f"[::ffff:{inner}]",
        f"[::{inner}]",
        f"[64:ff9b::{inner}]",
        f"[::ffff:{inner}%25lo]",
        f"[0:0:0:0:0:FFFF:{a << 8 | b:04X}:{c << 8 | d:04X}]",
    ]


NAMES: Final = (
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ｌｏｃａｌｈｏｓｔ",
    "ⓛocalhost",
    "local\u00adhost",
    "api.localhost",
    "api.localhost.",
    "printer.local",
    "metadata.google.internal",
    "metadata.google.internal.",
    "Metadata.Google.Internal",
    "instance-data.ec2.internal",
    "kubernetes.default.svc.cluster.local",
    "host.docker.internal",
    "router.home.arpa",
    "expyuzz4wqqyqhjn.onion",
    "redis",
    "metadata",
    "ip6-localhost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::1%25lo]",
    "[::1%lo]",
    "[fe80::1%25eth0]",
    "[fd00:ec2::254]",
    "[v1.fe80::1]",
    "[::1",
    "::1]",
    "::1",
    "[]",
    "[localhost]",
    "[::1].example.com",
    "[[::1]]",
    "8.8.8.8",
    "[2606:4700:4700::1111]",
)

URLS: Final = (
    "",
    "https",
    "https:",
    "https:/",
    "https://",
    "https:///etc/passwd",
    "https:/127.0.0.1/",
    "https:127.0.0.1",
    "//127.0.0.1/",
    "/latest/meta-data/",
    "http://tool.example.com/",
    "ftp://tool.example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_PING",
    "dict://127.0.0.1:11211/stat",
    "data:text/plain,hello",
    "javascript:alert(1)",
    "unix:///var/run/docker.sock",
    "jar:https://tool.example.com!/",
    "view-source:https://tool.example.com/",
    "url:https://tool.example.com/",
    "https+unix://tool.example.com/",
    "https\u200b://tool.example.com/",
    "ｈttps://tool.example.com/",
    " https://tool.example.com/",
    "https://tool.example.com/ ",
    "https://tool.example.com /",
    "https:// tool.example.com/",
    "\thttps://tool.example.com/",
    "ht\ntps://tool.example.com/",
    "https://tool.example.com/\r\nHost: 127.0.0.1",
    "https://tool.example.com/a\r\n\r\nGET / HTTP/1.1",
    "https://tool.example.com/\x00",
    "https://tool.example.com\x00.127.0.0.1/",
    "https://tool.example.com/\x7f",
    "https://tool.example.com/\x85",
    "https://tool.example.com/\u2028",
    "https://tool.example.com/\ud800",
    "https://tool.example.com\\@127.0.0.1/",
    "https://127.0.0.1\\@tool.example.com/",
    "https:\\\\127.0.0.1\\",
    "https://tool.example.com\\.127.0.0.1/",
    "https://user@tool.example.com/",
    "https://user:password@tool.example.com/",
    "https://@tool.example.com/",
    "https://:@tool.example.com/",
    "https://127.0.0.1@tool.example.com/",
    "https://tool.example.com@127.0.0.1/",
    "https://tool.example.com:443@127.0.0.1/",
    "https://tool.example.com:443:443@127.0.0.1/",
    "https://a@b@127.0.0.1/",
    "https://tool.example.com＠127.0.0.1/",
    "https://tool.example.com%40127.0.0.1/",
    "https://tool.example.com#@127.0.0.1/",
    "https://127.0.0.1#@tool.example.com/",
    "https://tool.example.com/#fragment",
    "https://tool.example.com/#",
    "https://127.0.0.1#tool.example.com",
    "https://127.0.0.1?tool.example.com",
    "https://127.0.0.1;tool.example.com/",
    "https://127.0.0.1,tool.example.com/",
    "https://127.0.0.1／tool.example.com/",
    "https://127.0.0.1℀.example.com/",
    "https://tool.example.com:/",
    "https://tool.example.com:0/",
    "https://tool.example.com:22/",
    "https://tool.example.com:80/",
    "https://tool.example.com:6379/",
    "https://tool.example.com:0443/",
    "https://tool.example.com:+443/",
    "https://tool.example.com:-443/",
    "https://tool.example.com:443 /",
    "https://tool.example.com:４４３/",
    "https://tool.example.com:٤٤٣/",
    "https://tool.example.com:4_43/",
    "https://tool.example.com:65979/",
    "https://tool.example.com:99999/",
    "https://tool.example.com:4294967739/",
    "https://tool.example.com:443:80/",
    "https://tool.example.com::443/",
    "https://tool.example.com:443a/",
    "https://.example.com/",
    "https://tool..example.com/",
    "https://tool.example.com../",
    "https://./",
    "https://-tool.example.com/",
    "https://tool-.example.com/",
    "https://*.example.com/",
    "https://tool.exam|ple.com/",
    "https://<tool>.example.com/",
    "https://tool.example.com%2f/",
    "https://%74ool.example.com/",
    "https://tool%00.example.com/",
    "https://tool.example.com%/",
    "https://[::1]tool.example.com/",
    "https://tool.example.com[::1]/",
    "https://[::1]:443]/",
    "https://[::ffff:7f00:1]:8443/",
    "https://tool\u200d.example.com/",
    "https://\u202etool.example.com/",
    f"https://{'a' * 64}.example.com/",
    f"https://{'a.' * 127}com/",
    f"https://{'é' * 300}.example.com/",
    f"https://tool.example.com/{'a' * 4096}",
)


def denied_urls() -> list[str]:
    """All of it as URLs, on the two ports that would be fine."""
    hosts = list(NAMES)
    for inner in ("127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1"):
        hosts.extend(notations(IPv4Address(inner)))
    hosts.extend(f"[{text}]" if ":" in text else text for text in denied_addresses())
    found = list(URLS)
    for number, host in enumerate(dict.fromkeys(hosts)):
        found.append(f"https://{host}{('', ':443', ':8443')[number % 3]}/latest/meta-data/")
    return found


def many_addresses(seed: int, count: int) -> Iterator[str]:
    """Members of denied networks, half of them disguised."""
    chance = random.Random(seed)
    narrow = [IPv4Network(text) for text in DENIED_V4]
    wide = [IPv6Network(text) for text in DENIED_V6]
    for _ in range(count):
        pick = chance.random()
        if pick < 0.2:
            yield str(in_v6(chance.choice(wide), chance))
            continue
        four = in_v4(chance.choice(narrow), chance)
        yield str(chance.choice(disguised(four))) if pick < 0.7 else str(four)
