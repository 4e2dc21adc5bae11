"""Trunkline itself, run from a checkout with the interpreter, and so the packages, of the bench."""

import sys

from gateways import Gateway, Place, free_port

CONFIGURATION = """
[server]
grpc = "127.0.0.1:{grpc_port}"
http = "127.0.0.1:{http_port}"

[local]
enabled = false

[limits]
max_in_flight = 2000

[[providers]]
id = "bench"
dialect = "openai"
base_url = "http://127.0.0.1:{upstream_port}/v1"
api_key_env = "BENCH_KEY"

[[models]]
id = "burst"
provider = "bench"

[[models]]
id = "paced"
provider = "bench"

[[models]]
id = "hold"
provider = "bench"
"""


def gateway(place: Place) -> Gateway:
    http_port, grpc_port = free_port(), free_port()
    configuration = place.folder / "trunkline.toml"
    configuration.write_text(
        CONFIGURATION.format(
            http_port=http_port, grpc_port=grpc_port, upstream_port=place.upstream_port
        )
    )
    sources = (place.checkout / "server", place.checkout / "clients" / "python")
    return Gateway(
        command=[sys.executable, "-m", "trunkline", "serve", "--config", str(configuration)],
        http_port=http_port,
        grpc_port=grpc_port,
        ready_path="/readyz",
        # Ahead of what is installed, so that it is the checkout that is measured.
        environment={"PYTHONPATH": ":".join(map(str, sources)), "BENCH_KEY": "bench"},
    )
