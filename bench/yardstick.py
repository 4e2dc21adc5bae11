"""How fast this machine is at the moment, beside the one that the targets were stated for.

A small virtual machine shares its cores with strangers, and may be half as fast from one second to
the next without anything to see in its own statistics. So a little work of known cost is done all
through a round; what it cost then says how much to believe of the round's own numbers.
"""

import json
import time

REFERENCE_US = 2.6  # CPython 3.12 on two cores of an AMD EPYC machine, where the targets come from.
REPEATS = 100
CHUNK = (
    b'{"id":"chatcmpl-CGv3kQwJ9T0bXn5YdLr8sZa1PfEoM","object":"chat.completion.chunk",'
    b'"created":1763683200,"model":"burst","system_fingerprint":"fp_44709d6fcb","choices":['
    b'{"index":0,"delta":{"content":" brave"},"logprobs":null,"finish_reason":null}],"usage":null}'
)


def slowness_now() -> float:
    """CPU time that `json.loads` of one chunk takes now, as a multiple of the reference."""
    started_s = time.thread_time()
    for _ in range(REPEATS):
        json.loads(CHUNK)
    return (time.thread_time() - started_s) / REPEATS * 1e6 / REFERENCE_US
