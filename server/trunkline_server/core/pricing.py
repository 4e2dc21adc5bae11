"""What an answer cost."""

from typing import Final

from trunkline.v1.completion_pb2 import Cost, Usage
from trunkline_server.core.candidate import Price

TOKENS_PER_PRICE = 1_000_000
CURRENCY: Final = "USD"


def price(usage: Usage, rate: Price) -> Cost | None:
    """Cost in nanos (1e-9) of a US dollar, rounded down; None where a price that is needed is unknown.

    Args:
        usage: `cached_input_tokens` is part of `input_tokens`.
        rate: nanos per million tokens. Cached input without a price of its own costs as input does.
    """
    if rate.input_nanos is None or rate.output_nanos is None:
        return None
    cached_nanos = rate.input_nanos if rate.cached_input_nanos is None else rate.cached_input_nanos
    total = (
        (usage.input_tokens - usage.cached_input_tokens) * rate.input_nanos
        + usage.cached_input_tokens * cached_nanos
        + usage.output_tokens * rate.output_nanos
    )
    return Cost(
        amount_nanos=total // TOKENS_PER_PRICE, currency_code=CURRENCY, estimated=usage.estimated
    )
