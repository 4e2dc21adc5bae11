"""A network of its own, where every packet that would leave the machine is seen. Run under `unshare -rn`.

All routes lead into a tun device, so packets to whatever address end in `packets`; what stays on the loopback is
captured there. Prints one line of JSON; exits with `NOT_HERE` where the system does not allow such a network.
"""

import asyncio
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from ipaddress import ip_address
from typing import Final

from tests.egress.corpus import denied_addresses, denied_urls, many_addresses
from tests.egress.peers import NAME, OK, PUBLIC, Names, always, door, peer, post, reply, told

NOT_HERE: Final = 77
OWN: Final = "93.184.1.1"
_PUBLIC_V6: Final = "2606:4700::1111"
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_WITHOUT_HEADER: Final = 0x1001
_ETH_P_ALL: Final = 3
_COMMANDS: Final = (
    "ip link set lo up",
    f"ip address add {OWN}/32 dev lo",
    "ip address add 93.184.2.1/32 dev out",
    "ip -6 address add 2a00:1450::1/64 dev out nodad",
    "ip link set out up",
    "ip route add default dev out",
    "ip -6 route add default dev out",
)


class Network:
    """All TCP and UDP packets, in or out, as "address port"."""

    def __init__(self) -> None:
        self._tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._tun, _TUNSETIFF, struct.pack("16sH22x", b"out", _IFF_TUN_WITHOUT_HEADER))
        for command in _COMMANDS:
            subprocess.run(command.split(), check=True, capture_output=True)
        protocol = socket.htons(_ETH_P_ALL)
        self._loopback = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, protocol)
        self._loopback.bind(("lo", _ETH_P_ALL))
        self._loopback.setblocking(False)

    def packets(self) -> set[str]:
        """Destinations of all packets since the last call."""
        found = set[str]()
        for read in (lambda: os.read(self._tun, 2048), lambda: self._loopback.recv(2048)):
            while True:
                try:
                    packet = read()
                except BlockingIOError:
                    break
                found.update(_destination(packet))
        return found


def _destination(packet: bytes) -> list[str]:
    is_v6 = packet[0] >> 4 == 6
    protocol = packet[6] if is_v6 else packet[9]
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return []
    start = 40 if is_v6 else (packet[0] & 15) * 4
    address = ip_address(packet[24:40] if is_v6 else packet[16:20])
    return [f"{address} {int.from_bytes(packet[start + 2 : start + 4], 'big')}"]


async def observe(network: Network, count: int) -> dict[str, object]:
    """What is denied, what of it could be seen, and what can be seen of what is not denied."""
    answers = [*denied_addresses(), *many_addresses(21, count), OWN]
    egress = door(resolve=Names(default=[[address] for address in answers]))
    outcomes = {told(await post(egress, f"https://{NAME}/")) for _ in answers}
    urls = denied_urls()
    outcomes |= {told(await post(egress, url)) for url in urls}
    async with peer(reply(OK), host=OWN, port=8443) as own:
        own_egress = door(resolve=always(OWN))
        outcomes.add(told(await post(own_egress, f"https://{NAME}:8443/")))
        came = len(own.connections)
    denied = network.packets()
    async with peer(reply(OK)) as inside:
        allowed = door([NAME], resolve=always("127.0.0.1"))
        reached = told(await post(allowed, f"http://{NAME}:{inside.port}/"))
        loopback = f"127.0.0.1 {inside.port}" in network.packets()
    for address in (PUBLIC, _PUBLIC_V6):
        await post(door(resolve=always(address)), f"https://{NAME}/", limit_s=0.1)
    return {
        "cases": len(answers) + len(urls),
        "outcomes": sorted(str(outcome) for outcome in outcomes),
        "packets": sorted(denied),
        "connections to itself": came,
        "allowed": reached,
        "loopback is seen": loopback,
        "public": sorted(seen for seen in network.packets() if not seen.startswith("127.")),
    }


def main() -> None:
    """For `python -m`."""
    try:
        network = Network()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error!r}\n")
        sys.exit(NOT_HERE)
    print(json.dumps(asyncio.run(observe(network, int(sys.argv[1])))))


if __name__ == "__main__":
    main()
