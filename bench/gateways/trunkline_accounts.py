"""Trunkline with accounts in SQLite: every request has a key, is held for, charged, and written down."""

import os
import sqlite3
import subprocess
import time

from gateways import Gateway, Place, trunkline

KEY = "bench-key-of-a-prepaid-organization"
NANOS = 10**17

ACCOUNTS = """
[accounts]
database_url = "sqlite:{folder}/trunkline.db"
pepper_env = "BENCH_PEPPER"

[[plans]]
id = "prepaid"
prepaid = true

[[keys]]
id = "bench"
key_env = "BENCH_CALLER"
organization = "bench"
plan = "prepaid"
"""
PRICES = """
input_price = 1.0
output_price = 2.0
"""


def gateway(place: Place) -> Gateway:
    plain = trunkline.gateway(place)
    configuration = place.folder / "trunkline.toml"
    text = configuration.read_text().replace('provider = "bench"\n', f'provider = "bench"{PRICES}')
    configuration.write_text(text + ACCOUNTS.format(folder=place.folder))
    environment = {**plain.environment, "BENCH_CALLER": KEY, "BENCH_PEPPER": "p" * 43}
    python, *_ = plain.command
    subprocess.run(
        [python, "-m", "trunkline", "db", "upgrade", "--config", str(configuration)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    _grant(str(place.folder / "trunkline.db"))
    return Gateway(
        command=plain.command,
        http_port=plain.http_port,
        grpc_port=None,  # The load sends no metadata over gRPC.
        ready_path=plain.ready_path,
        environment=environment,
        headers=[f"authorization: Bearer {KEY}"],
    )


def _grant(path: str) -> None:
    now_us = time.time_ns() // 1_000
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO accounts VALUES ('bench', ?, 0, 1, ?)", (NANOS, now_us))
        db.execute(
            "INSERT INTO entries VALUES ('bench', 1, 1, 'promotion', ?, ?, '', NULL, '', ?)",
            (NANOS, NANOS, now_us),
        )
    db.close()
