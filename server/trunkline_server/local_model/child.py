"""The embedded model's process: llama.cpp's own OpenAI-compatible server, bound to loopback behind a random key.

A process of its own, so that inference never holds the service's event loop.
"""

import os
import sys
from typing import Any

import msgspec

from trunkline_server.local_model.process import MODEL_ID, Start, Started


def main() -> int:
    """Read one line of JSON, serve, and end with standard input."""
    start = msgspec.json.decode(sys.stdin.buffer.readline(), type=Start)
    # The engine writes its log to both outputs; the one line of ours needs the real standard output for itself.
    answer = os.fdopen(os.dup(1), "wb")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        server = _serve(start)
        port = int(server.listening_address.rpartition(":")[2].rstrip("/"))
        answer.write(msgspec.json.encode(Started(port=port)) + b"\n")
        answer.flush()
    except Exception as error:  # noqa: BLE001 - the engine documents no errors; the parent is told
        answer.write(msgspec.json.encode(Started(error=type(error).__name__)) + b"\n")
        answer.flush()
        return 1
    sys.stdin.buffer.read()
    # The engine's threads would delay a normal exit until their generation ends.
    os._exit(0)


def _serve(start: Start) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = start.model_path
    params.model_alias = {MODEL_ID}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = start.slots
    params.n_ctx = start.slot_tokens * start.slots
    params.cpuparams.n_threads = start.threads
    params.cpuparams_batch.n_threads = start.threads
    params.use_jinja = True
    params.ui = False
    params.api_keys = [start.api_key]
    return xllamacpp.Server(params)


if __name__ == "__main__":
    sys.exit(main())
