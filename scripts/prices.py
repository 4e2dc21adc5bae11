"""Writes the table of list prices from the package genai-prices (MIT).

    prices.py            replaces server/trunkline_server/providers/list_prices.json
    prices.py --check    only says whether that would change it; exit code 1 when it would

The package finds a price by rules such as "begins with" and "contains", which is right for what it is made for, and
not for a price that a router trusts: they also fit names that nobody has priced. So the rules are asked here, once,
about names that are known, and the table holds the names. A rule that fits later versions of a name too is kept as
the forms in which a version may follow it. The server needs the table only, not the package, whose import takes more
time and memory than all prices are worth.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Final

from genai_prices import types
from genai_prices.data import providers

ROOT: Final = Path(__file__).resolve().parent.parent
TABLE: Final = ROOT / "server/trunkline_server/providers/list_prices.json"
PACKAGE: Final = "genai-prices"
# Our dialects, and whose prices they are paid at.
SELLERS: Final = {
    "anthropic": "anthropic",
    "azure": "azure",
    "bedrock": "aws",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "gemini": "google",
    "groq": "groq",
    "mistral": "mistral",
    "openai": "openai",
    "openrouter": "openrouter",
    "together": "together",
    "xai": "x-ai",
}
# The package lets others sell for more makers than these, whose prices depend on the hour or the place.
SOLD_AT_MAKERS_PRICE: Final = {"azure": ("openai",)}
# What a caller of Gemini's own API can't ask for: these are sold elsewhere in Google's cloud.
ELSEWHERE: Final = {"gemini": ("claude", "anthropic/")}
# Names that mean another model now than the one whose price the package gives them, or none any more.
# Sources: https://api-docs.deepseek.com (deepseek-flash is the one to use, deepseek-v4-pro is served and billed as it,
# the V3 names are gone), simonw/llm-prices#63 and promptfoo/promptfoo#9929 for Mistral's; read 2026-11-22.
MOVED_ON: Final = {
    "deepseek": {"deepseek-chat", "deepseek-reasoner", "deepseek-v4-pro"},
    "mistral": {"magistral-medium", "mistral-large", "mistral-large-latest", "mistral-medium"},
}
# What may follow a name, by examples that no rule can know.
DATES: Final = ("-20991231", "@20991231", "-2099-12-31")
VERSIONS: Final = (
    *DATES,
    *("-latest", "-099", "-preview", "-preview-12-31", "-preview-12-2099"),
    *("-v9:9", "-v9", ":9", "-20991231-v9:9"),
)
# A price on Bedrock is that of a region, so a name gets no prefix that its rule doesn't name. What is not named is the
# price in the United States.
BEDROCK_HOME: Final = "us."
BEDROCK_REGIONS: Final = ("us.", "eu.", "apac.")
BEDROCK_EVERYWHERE: Final = ("amazon.", "deepseek.", "meta.", "mistral.", "writer.")
EARLY: Final = date(2000, 1, 1)  # Before all prices.
FINE_TUNED: Final = ("ft:", ".ft-")  # Their names end in the owner's own words.

Row = dict[str, object]


def table() -> str:
    """The whole file: one line for each model."""
    dialects = {dialect: list(rows(dialect, seller)) for dialect, seller in SELLERS.items()}
    digest = hashlib.sha256(json.dumps(dialects).encode()).hexdigest()[:12]
    lines = [
        "{",
        f'"package": "{PACKAGE}", "version": "{version(PACKAGE)}", "digest": "{digest}",',
        '"usd_per_million_tokens": {',
    ]
    for number, (dialect, found) in enumerate(dialects.items(), 1):
        lines += [f'"{dialect}": [', ",\n".join(json.dumps(row) for row in found)]
        lines += ["]," if number < len(dialects) else "]"]
    return "\n".join([*lines, "}}", ""])


def rows(dialect: str, seller_id: str) -> Iterator[Row]:
    """Each model that is sold by tokens: its prices by date, and its names by what may follow them."""
    seller = provider(seller_id)
    makers = [provider(maker) for maker in SOLD_AT_MAKERS_PRICE.get(dialect, ())]
    for model in [*seller.models, *(model for maker in makers for model in maker.models)]:
        by_kind: dict[str, list[str]] = {}
        for name in sorted(set(names_of(dialect, model))):
            if is_sold_as(seller, name, model):
                by_kind.setdefault(kind_of(seller, name, model), []).append(name)
        dated_prices = list(prices(model))
        if by_kind and dated_prices:
            yield {**by_kind, "prices": dated_prices}


def kind_of(seller: types.Provider, name: str, model: types.ModelInfo) -> str:
    """Whether its rule fits the exact name alone, its dated versions too, or whatever follows."""
    if all(is_sold_as(seller, name + end, model) for end in VERSIONS):
        return "open"
    if any(is_sold_as(seller, name + end, model) for end in DATES):
        return "dated"
    return "exact"


def is_sold_as(seller: types.Provider, name: str, model: types.ModelInfo) -> bool:
    """By the package's own rules, of which the first that fits decides."""
    return model.is_match(name) and seller.find_model(name, all_providers=providers) is model


def provider(provider_id: str) -> types.Provider:
    """By its exact id."""
    return next(provider for provider in providers if provider.id == provider_id)


def names_of(dialect: str, model: types.ModelInfo) -> Iterator[str]:
    """Names under which it may be asked for: those that its rules spell out."""
    texts = [text.lower().strip("/").rstrip("-@") for text in spelled_out(model.match)]
    if dialect == "bedrock":
        for text in texts:
            yield from bedrock_names(text)
        return
    for name in (*texts, model.id.lower()):
        if (
            name not in MOVED_ON.get(dialect, ())
            and not name.startswith(ELSEWHERE.get(dialect, ()))
            and not any(mark in name for mark in FINE_TUNED)
        ):
            yield name


def bedrock_names(text: str) -> Iterator[str]:
    """Models and inference profiles."""
    if text.startswith("claude-"):  # Of the years when all regions had one price.
        yield f"anthropic.{text}"
        yield from (f"{region}anthropic.{text}" for region in BEDROCK_REGIONS)
        return
    yield text
    if text.startswith(BEDROCK_EVERYWHERE):
        yield BEDROCK_HOME + text


def spelled_out(match: types.MatchLogic) -> Iterator[str]:
    """The texts in a rule, but for patterns."""
    match match:
        case types.ClauseOr():
            for clause in match.or_:
                yield from spelled_out(clause)
        case types.ClauseAnd():
            for clause in match.and_:
                yield from spelled_out(clause)
        case types.ClauseEquals():
            yield match.equals
        case types.ClauseStartsWith():
            yield match.starts_with
        case types.ClauseEndsWith():
            yield match.ends_with
        case types.ClauseContains():
            yield match.contains
        case types.ClauseRegex():
            return


def prices(model: types.ModelInfo) -> Iterator[Row]:
    """By the day since when they apply, oldest first; empty where input or output is not sold by tokens."""
    conditions = (
        [] if isinstance(model.prices, types.ModelPrice) else [p.constraint for p in model.prices]
    )
    starts = [c.start_date for c in conditions if isinstance(c, types.StartDateConstraint)]
    previous: Row = {}
    for since in (EARLY, *sorted(set(starts))):
        found = dearest(model, since, conditions)
        if not found:
            if previous:
                raise SystemExit(
                    f"{model.id}: is no longer sold by tokens from {since}; decide what that means"
                )
            continue
        if found != previous:
            yield {**({} if since == EARLY else {"since": since.isoformat()}), **found}
        previous = found


def dearest(model: types.ModelInfo, day: date, conditions: Iterable[object]) -> Row:
    """The price on that day; where it changes in the course of a day, the highest."""
    hours = [time(0)]
    for condition in conditions:
        if isinstance(condition, types.TimeOfDateConstraint):
            hours += [condition.start_time, condition.end_time]
    found = [model.get_prices(datetime.combine(day, hour.replace(tzinfo=UTC))) for hour in hours]
    return row(max(found, key=lambda price: base(price.output_mtok) or 0))


def row(price: types.ModelPrice) -> Row:
    """Of prices that depend on the length of the input, those of the shortest."""
    amounts = {
        "input": base(price.input_mtok),
        "output": base(price.output_mtok),
        "cached_input": base(price.cache_read_mtok),
    }
    if amounts["input"] is None or amounts["output"] is None:
        return {}
    return {name: number(amount) for name, amount in amounts.items() if amount is not None}


def base(price: Decimal | types.TieredPrices | None) -> Decimal | None:
    """The first tier's price."""
    return price.base if isinstance(price, types.TieredPrices) else price


def number(amount: Decimal) -> int | float:
    """As JSON writes it, without loss."""
    short = int(amount) if amount == int(amount) else float(amount)
    if Decimal(str(short)) != amount:
        raise SystemExit(f"{amount} has too many digits")
    return short


def main(arguments: list[str]) -> int:
    """Write the table, or compare with it."""
    new = table()
    if arguments == ["--check"]:
        if TABLE.is_file() and TABLE.read_text(encoding="utf-8") == new:
            return 0
        print(f"{TABLE.relative_to(ROOT)} is not what {PACKAGE} says; run scripts/prices.py")
        return 1
    if arguments:
        print(__doc__)
        return 2
    TABLE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
