"""List prices: known names have the package's price, and other names have none."""

import contextlib
import importlib.util
import itertools
import re
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from importlib.metadata import version as package_version
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from trunkline_server import providers
from trunkline_server.core.candidate import Price
from trunkline_server.providers.prices import MAX_NAME_CHARS, list_price, version
from trunkline_server.providers.registry import DIALECTS

pytestmark = pytest.mark.once

TODAY = date(2026, 11, 22)
ROOT = Path(__file__).resolve().parents[3]
TABLE = msgspec.json.decode((files(providers) / "list_prices.json").read_bytes())
SELLERS = {"bedrock": "aws", "gemini": "google", "xai": "x-ai"}
KINDS = ("exact", "dated", "open")
ARN = "arn:aws:bedrock:eu-central-1:123456789012"
TOKENS = 1000  # Fewer than any tier begins with.
UNKNOWN = Price()

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("genai_prices") is None, reason="genai-prices is not installed"
)


def usd(amount: float) -> int:
    return round(amount * 1_000_000_000)


@pytest.mark.parametrize(
    ("dialect", "model", "price"),
    [
        ("openai", "gpt-5.4-mini", Price(usd(0.75), usd(4.5), usd(0.075))),
        ("openai", "GPT-5.4-Mini", Price(usd(0.75), usd(4.5), usd(0.075))),
        ("anthropic", "claude-sonnet-5-5", Price(usd(2), usd(10), usd(0.1))),
        ("groq", "openai/gpt-oss-120b", Price(usd(0.15), usd(0.6), usd(0.075))),
        ("cohere", "command-a-03-2025", Price(usd(2.5), usd(10), None)),
        ("azure", "gpt-35-turbo", Price(usd(0.5), usd(1.5), None)),
        ("openrouter", "openai/gpt-4o-mini", Price(usd(0.15), usd(0.6), usd(0.075))),
    ],
)
def test_a_known_model_costs_what_its_provider_lists(dialect, model, price):
    assert list_price(dialect, model, TODAY) == price


@pytest.mark.parametrize(
    ("dialect", "model", "version_of_it"),
    [
        ("anthropic", "claude-haiku-4-5", "claude-haiku-4-5-20251001"),
        ("anthropic", "claude-haiku-4-5", "claude-haiku-4-5@20251001"),
        ("anthropic", "claude-sonnet-5-5", "claude-sonnet-5-5-20261007"),
        ("openai", "gpt-6-sol", "gpt-6-sol-2026-09-30"),
        ("gemini", "gemini-2.5-pro", "models/gemini-2.5-pro"),
        ("gemini", "gemini-2.5-pro", "gemini-2.5-pro-preview-06-05"),
        ("gemini", "gemini-2.5-pro", "gemini-2.5-pro-001"),
        ("bedrock", "amazon.nova-lite", "amazon.nova-lite-v1:0"),
        ("bedrock", "amazon.nova-lite", "us.amazon.nova-lite-v1:0"),
        ("bedrock", "openai.gpt-oss-120b-1", "openai.gpt-oss-120b-1:0"),
        (
            "bedrock",
            "eu.anthropic.claude-opus-4-5",
            "eu.anthropic.claude-opus-4-5-20251101-v1:0",
        ),
        (
            "bedrock",
            "global.anthropic.claude-haiku-5-5",
            f"{ARN}:inference-profile/global.anthropic.claude-haiku-5-5",
        ),
    ],
)
def test_a_version_of_a_model_costs_what_the_model_costs(dialect, model, version_of_it):
    price = list_price(dialect, model, TODAY)

    assert price != UNKNOWN
    assert list_price(dialect, version_of_it, TODAY) == price


@pytest.mark.parametrize(
    ("dialect", "model"),
    [
        ("openai", ""),
        ("openai", "my-gpt-4o"),
        ("openai", "gpt-4o-for-lawyers"),
        ("openai", "gpt-4o-2099-01-01"),  # Its versions have had prices of their own.
        ("openai", "ft:gpt-4o-2024-08-06:acme::abc123"),
        ("openai", "ft:gpt-3.5-turbo-0125:acme::abc123"),
        ("openai", "gpt-5-nano-our-own"),
        ("openai", "text-moderation-made-up"),
        ("openai", "claude-sonnet-5-5"),
        ("azure", "team-o4-mini-prod"),
        ("anthropic", "claude-haiku-4-5-tuned-by-us"),
        ("anthropic", "claude-haiku-4-6"),
        ("anthropic", "claude-3-5-sonnet-20241022-v2:0-copy"),
        ("gemini", "tunedModels/gemini-2.5-pro-acme"),
        ("gemini", "gemini-2.5-pro-acme"),
        ("gemini", "claude-haiku-4-5"),  # Sold in the same cloud, but not by this API.
        ("cohere", "our-aya-expanse-32b"),
        ("bedrock", "custom.amazon.nova-lite-v1:0"),
        ("bedrock", "eu.amazon.nova-lite-v1:0"),  # Not what it costs in the United States.
        ("bedrock", f"{ARN}:custom-model/amazon.nova-lite/x1"),
        ("bedrock", f"{ARN}:provisioned-model/amazon.nova-lite"),
        ("bedrock", f"{ARN}:application-inference-profile/a1b2"),
        # Names that mean another model by now.
        ("mistral", "mistral-large-latest"),
        ("deepseek", "deepseek-chat"),
        ("deepseek", "deepseek-v4-pro"),
        ("anthropic", "claude-haiku-4-5" + "-20251001" * 100),
    ],
)
def test_a_name_that_nobody_has_priced_has_no_price(dialect, model):
    assert list_price(dialect, model, TODAY) == UNKNOWN


@pytest.mark.parametrize("dialect", ["local", "ollama", "vllm", "llamacpp", "made-up"])
def test_whoever_runs_a_model_alone_knows_what_it_costs(dialect):
    assert list_price(dialect, "openai/gpt-oss-120b", TODAY) == UNKNOWN
    assert list_price(dialect, "gpt-4o", TODAY) == UNKNOWN


def test_a_price_changes_on_the_day_that_was_announced():
    last_day = list_price("gemini", "gemini-3.8-flash", date(2026, 12, 31))
    first_day = list_price("gemini", "gemini-3.8-flash", date(2027, 1, 1))

    assert last_day == Price(usd(0.75), usd(3.75), usd(0.075))
    assert first_day == Price(usd(1.5), usd(7.5), usd(0.15))


def test_of_tiers_the_first_counts_and_of_hours_the_dearest():
    tiered = list_price("gemini", "gemini-2.5-pro", TODAY)
    hourly = list_price("deepseek", "deepseek-flash", TODAY)

    assert tiered == Price(usd(1.25), usd(10), usd(0.125))
    assert hourly == Price(usd(0.3), usd(1.2), usd(0.006))


def test_a_very_long_name_is_not_looked_at():
    assert list_price("openai", "g" * (MAX_NAME_CHARS + 1), TODAY) == UNKNOWN


def test_the_version_names_the_package_and_its_prices():
    assert re.fullmatch(r"genai-prices \d+\.\d+\.\d+ [0-9a-f]{12}", version())


def test_prices_are_those_of_dialects_that_there_are():
    assert TABLE["usd_per_million_tokens"].keys() <= DIALECTS.keys()


def test_every_name_is_in_one_row_of_its_dialect():
    for rows in TABLE["usd_per_million_tokens"].values():
        names = [name for row in rows for kind in KINDS for name in row.get(kind, ())]

        assert len(names) == len(set(names))


def test_no_package_is_needed_to_know_a_price():
    script = (
        "import sys; from datetime import date\n"
        "from trunkline_server.providers.prices import list_price\n"
        "assert list_price('openai', 'gpt-4o', date(2026, 11, 22)).input_nanos\n"
        "print([m for m in ('genai_prices', 'pydantic', 'httpx', 'httpx2') if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout == "[]\n"


@needs_package
def test_the_table_is_what_its_script_makes_of_the_installed_package():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/prices.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_package
def test_the_version_is_that_of_the_installed_package():
    assert version().split()[1] == package_version("genai-prices")


@needs_package
@pytest.mark.parametrize("dialect", TABLE["usd_per_million_tokens"])
def test_every_price_is_what_the_package_itself_charges(dialect):
    for row in TABLE["usd_per_million_tokens"][dialect]:
        starts = [date.fromisoformat(price["since"]) for price in row["prices"] if "since" in price]
        days = {TODAY, *starts, *(start - timedelta(days=1) for start in starts)}
        names = [name for kind in KINDS for name in row.get(kind, ())]
        for name, day in itertools.product(names, sorted(days)):
            price = list_price(dialect, name, day)

            assert (price.input_nanos, price.output_nanos) == charged(dialect, name, day)


@needs_package
@pytest.mark.parametrize("dialect", TABLE["usd_per_million_tokens"])
def test_a_later_version_costs_what_the_package_charges_for_it(dialect):
    for row in TABLE["usd_per_million_tokens"][dialect]:
        for name in (*row.get("dated", ()), *row.get("open", ())):
            price = list_price(dialect, f"{name}-20991231", TODAY)
            expected = set()
            for end in ("-20991231", "@20991231", "-2099-12-31"):
                with contextlib.suppress(LookupError):  # It may know one form of a date only.
                    expected.add(charged(dialect, name + end, TODAY))

            assert {(price.input_nanos, price.output_nanos)} == expected


def charged(dialect: str, model: str, day: date) -> tuple[int, int]:
    """Nanos of a dollar per million tokens of input and of output, at the dearest hour."""
    from genai_prices import Usage, calc_price

    hours = range(24) if dialect == "deepseek" else [12]
    found = [
        calc_price(
            Usage(input_tokens=TOKENS, output_tokens=TOKENS),
            model,
            provider_id=SELLERS.get(dialect, dialect),
            genai_request_timestamp=datetime.combine(day, time(hour), UTC),
        )
        for hour in hours
    ]
    dearest = max(found, key=lambda price: price.total_price)
    scale = 1_000_000 // TOKENS * 1_000_000_000
    return round(dearest.input_price * scale), round(dearest.output_price * scale)
