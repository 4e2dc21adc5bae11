"""No packet leaves for a denied network, counted in a network where every packet is seen."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.egress.namespace import NOT_HERE

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "count",
    [pytest.param(500, id="short"), pytest.param(100_000, id="long", marks=pytest.mark.slow)],
)
def test_no_packet_leaves_for_a_denied_network(count):
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    ran = subprocess.run(
        [unshare, "-rn", sys.executable, "-m", "tests.egress.namespace", str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if ran.returncode == NOT_HERE or "unshare failed" in ran.stderr:
        pytest.skip(f"no network of our own here: {ran.stderr.strip()}")

    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found.pop("cases") > count + 1000
    assert found == {
        "outcomes": ["('ADDRESS_DENIED', False)", "('URL_INVALID', False)"],
        "packets": [],
        "connections to itself": 0,
        "allowed": 200,
        "loopback is seen": True,
        "public": ["2606:4700::1111 443", "93.184.216.34 443"],
    }
