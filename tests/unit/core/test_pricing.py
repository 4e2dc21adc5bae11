"""What an answer costs, in nanos of a US dollar."""

import pytest

from trunkline.v1.completion_pb2 import Cost, Usage
from trunkline_server.core.candidate import Price
from trunkline_server.core.pricing import price

DOLLAR = 1_000_000_000


def usage(input_tokens: int, output_tokens: int, cached: int = 0, estimated: bool = False) -> Usage:
    """Counts."""
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached,
        estimated=estimated,
    )


@pytest.mark.parametrize(
    ("counts", "rate", "nanos"),
    [
        (usage(1_000_000, 0), Price(2 * DOLLAR, 8 * DOLLAR), 2 * DOLLAR),
        (usage(0, 1_000_000), Price(2 * DOLLAR, 8 * DOLLAR), 8 * DOLLAR),
        (usage(9, 4), Price(2 * DOLLAR, 8 * DOLLAR), 18_000 + 32_000),
        (usage(10, 0, cached=4), Price(DOLLAR, DOLLAR, DOLLAR // 10), 6_000 + 400),
        (usage(10, 0, cached=4), Price(DOLLAR, DOLLAR), 10_000),
        (usage(10, 0, cached=10), Price(DOLLAR, DOLLAR, 0), 0),
        (usage(1, 1), Price(1, 1), 0),
        (usage(999_999, 1), Price(1, 1), 1),
        (usage(5, 5), Price(0, 0), 0),
        (usage(0, 0), Price(DOLLAR, DOLLAR), 0),
    ],
    ids=[
        "input",
        "output",
        "both",
        "some of it cached",
        "cached, without a price of its own",
        "all of it cached, for nothing",
        "less than a nano is rounded down",
        "rounded once, over all",
        "free",
        "nothing used",
    ],
)
def test_tokens_cost_what_their_kind_costs(counts, rate, nanos):
    assert price(counts, rate) == Cost(amount_nanos=nanos, currency_code="USD")


def test_a_cost_of_estimated_counts_is_estimated():
    found = price(usage(1_000_000, 0, estimated=True), Price(DOLLAR, DOLLAR))

    assert found == Cost(amount_nanos=DOLLAR, currency_code="USD", estimated=True)


@pytest.mark.parametrize("rate", [Price(), Price(DOLLAR), Price(None, DOLLAR), Price(None, 1, 1)])
def test_an_unknown_price_is_no_cost_rather_than_none_at_all(rate):
    assert price(usage(5, 5), rate) is None
