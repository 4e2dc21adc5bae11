"""What models cost when their operator says nothing: the providers' list prices.

They lie in a table that `scripts/prices.py` makes from the package genai-prices (MIT), because the package itself
needs 17 MB and 0.3 s to be imported and finds a price by rules that fit names that nobody has priced. Here a name is
known or it is not. What may follow one is a version, where the package's own rule allows it: a dated one of a name
that is `dated`, of an `open` one also `-latest`, `-preview` and the versions of Bedrock. A fine-tuned model and a
deployment under a name of its own cost what their operator says.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec

from trunkline_server.core.candidate import Price

TABLE: Final = "list_prices.json"
NANOS_DIGITS: Final = 9
MAX_NAME_CHARS: Final = 256
_DATE: Final = r"[-@]\d{8}|-\d{4}-\d\d-\d\d"
DATED: Final = re.compile(f"(?:{_DATE})$", re.ASCII)
OPEN: Final = re.compile(
    rf"(?:{_DATE}|-\d{{3}}|-latest|-preview(?:-\d\d-\d\d(?:\d\d)?)?)?(?:-v\d(?::\d)?|:\d)?$",
    re.ASCII,
)
# Whose resource it is goes before the name. An account's own resources have opaque names.
BEDROCK_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:\d*:(?:foundation-model|inference-profile)/"
)


class _Dated(msgspec.Struct):
    """US dollars per million tokens, from a day on; the first from ever."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    since: date = date.min


class _Row(msgspec.Struct):
    """One model. Each of its names is in one list; prices are in the order of their days."""

    prices: list[_Dated]
    exact: list[str] = []
    dated: list[str] = []
    open: list[str] = []


class _Table(msgspec.Struct):
    package: str
    version: str
    digest: str
    usd_per_million_tokens: dict[str, msgspec.Raw]


@dataclass(frozen=True, slots=True)
class _Dialect:
    """The prices of one dialect: of all its names, of those that a date may follow, and any version."""

    names: Mapping[str, list[_Dated]]
    dated: Mapping[str, list[_Dated]]
    open: Mapping[str, list[_Dated]]


def list_price(dialect: str, model: str, today: date) -> Price:
    """What the provider charges anybody on that day; all unknown where that is not known.

    Prices are those of text, in real time, at the usual service tier; where they grow with the length of the input,
    of the shortest inputs; where they depend on the hour, the highest. What is charged by anything but tokens is not
    in them. They are the vendors' own, so only good for a provider at its dialect's usual address. On Bedrock a name
    without a region before it costs what it costs in the United States.

    Args:
        dialect: a name in `DIALECTS`.
        model: as the provider knows it.
        today: prices change on announced days.
    """
    if len(model) > MAX_NAME_CHARS:
        return Price()
    name = model.lower()
    if dialect == "gemini":
        name = name.removeprefix("models/")
    elif dialect == "bedrock":
        name = BEDROCK_ARN.sub("", name)
    known = _dialect(dialect)
    for dated in (
        known.names.get(name),
        known.dated.get(DATED.sub("", name)),
        known.open.get(OPEN.sub("", name)),
    ):
        if dated is not None:
            return _price(dated, today)
    return Price()


@cache
def version() -> str:
    """Of the table: the package's name and version and a digest of the prices, to be stored with what was charged."""
    table = _table()
    return f"{table.package} {table.version} {table.digest}"


@cache
def _dialect(dialect: str) -> _Dialect:
    raw = _table().usd_per_million_tokens.get(dialect)
    rows = [] if raw is None else msgspec.json.decode(raw, type=list[_Row])
    return _Dialect(
        names={name: row.prices for row in rows for name in (*row.exact, *row.dated, *row.open)},
        dated={name: row.prices for row in rows for name in row.dated},
        open={name: row.prices for row in rows for name in row.open},
    )


def _table() -> _Table:
    return msgspec.json.decode((files(__package__) / TABLE).read_bytes(), type=_Table)


def _price(dated: list[_Dated], today: date) -> Price:
    current = [price for price in dated if price.since <= today][-1]
    return Price(
        _nanos(current.input),
        _nanos(current.output),
        None if current.cached_input is None else _nanos(current.cached_input),
    )


def _nanos(usd: Decimal) -> int:
    return int(usd.scaleb(NANOS_DIGITS))
