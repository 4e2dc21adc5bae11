"""Usage: sums, and what an estimate rests on."""

from typing import Final

from trunkline.v1.completion_pb2 import Usage

COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "input_image_tokens",
)
MAX_COUNT: Final = 2**31 - 1
CHARS_PER_TOKEN: Final = 4  # A rule of thumb for English, for what is marked as estimated.


def add(total: Usage, usage: Usage) -> None:
    """Add to a total. Its cost is known only if all of its parts' are."""
    for name in COUNTS:
        setattr(total, name, min(MAX_COUNT, getattr(total, name) + getattr(usage, name)))
    total.estimated = total.estimated or usage.estimated
    if total.HasField("cost") and usage.HasField("cost"):
        total.cost.amount_nanos += usage.cost.amount_nanos
        total.cost.estimated = total.cost.estimated or usage.cost.estimated
    else:
        total.ClearField("cost")
