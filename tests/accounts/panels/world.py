"""A service with panels drawn by lot: who sits on them, how they work, what they cost, and where they escalate to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tests.support.accounts import ROOT
from tests.support.service import model, provider

CHAINS: Final = 40  # Of panels, each of which escalates to the next one.
MAX_CHAIN: Final = 5
MAX_MODELS: Final = 6
TIME_S: Final = 1.5  # That a request may take.
SILENCE_S: Final = 0.4  # Of an upstream, before another one is asked.
LIMITS: Final = ("first_token_timeout_s", "idle_timeout_s")
PREPAID: Final = "prepaid"
TRUSTING: Final = "trusting"  # Asks models of unknown price too.
COUNTED: Final = "counted"
PLANS: Final = (
    {"id": PREPAID, "prepaid": True, "max_deadline_s": TIME_S},
    {"id": TRUSTING, "prepaid": True, "refuse_unknown_price": False, "max_deadline_s": TIME_S},
    {"id": COUNTED, "max_deadline_s": TIME_S},
)
TRIGGERS: Final = ("refusal", "empty", "cut", "invalid_output", "uncertain", "disagreement")
USD: Final = (0.15, 1.0, 2.5, 15.0, 120.0)  # For a million tokens.


@dataclass(frozen=True)
class Rate:
    """Nanos per million tokens; None: unknown."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None

    def cost(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int | None:
        """As it is charged: rounded down."""
        if self.input is None or self.output is None:
            return None
        cached = self.input if self.cached is None else self.cached
        plain = (input_tokens - cached_tokens) * self.input
        return (plain + cached_tokens * cached + output_tokens * self.output) // 1_000_000


@dataclass
class World:
    """Settings of a service, and what is to be known of them."""

    sections: Mapping[str, Any]
    environment: Mapping[str, str]
    rates: dict[tuple[str, str], Rate]
    routes: list[str]  # That callers ask: the first one of each chain, or a later one.
    plans: list[str] = field(default_factory=list)  # Of the callers, by their number.


def world(random: Random, callers: int, url: str) -> World:
    """One organisation with one key for each caller, so that each one's account can be looked at alone."""
    providers, models, routes, asked = [], [], [], []
    rates: dict[tuple[str, str], Rate] = {}
    for chain in range(CHAINS):
        names = []
        for seat in range(random.randint(1, MAX_MODELS)):
            owner, name = f"p{chain}-{seat % 2}", f"m{chain}-{seat}"
            if seat < 2:
                limits: dict[str, Any] = dict.fromkeys(LIMITS, SILENCE_S)
                providers.append(provider(owner, f"{url}/{owner}", **limits))
            rate, prices = _rate(random)
            rates[owner, name] = rate
            models.append(model(name, owner, **prices))
            names.append(name)
        length = random.randint(1, MAX_CHAIN)
        ids = [f"panel-{chain}-{n}" for n in range(length)]
        for n, id_ in enumerate(ids):
            wider = ids[n + 1] if n + 1 < length else ""
            routes.append(_route(random, id_, names, wider))
        asked += [ids[0], ids[0], random.choice(ids)]
    plans = [random.choice((PREPAID, PREPAID, TRUSTING, COUNTED)) for _ in range(callers)]
    keys = [
        {"id": f"k{n}", "key_env": f"KEY_{n}", "organization": f"org{n}", "plan": plan}
        for n, plan in enumerate(plans)
    ]
    sections = {
        "plans": list(PLANS),
        "keys": [ROOT, *keys],
        "providers": providers,
        "models": models,
        "routes": routes,
    }
    environment = {f"KEY_{n}": key_of(n) for n in range(callers)}
    return World(sections, environment, rates, asked, plans)


def key_of(caller: int) -> str:
    """The secret."""
    return f"key-of-the-caller-{caller}"


def _rate(random: Random) -> tuple[Rate, dict[str, float]]:
    kind = random.random()
    if kind < 0.08:
        return Rate(), {}
    input_usd, output_usd = random.choice(USD), random.choice(USD)
    if kind < 0.16:
        input_usd = output_usd = 0.0
    prices = {"input_price": input_usd, "output_price": output_usd}
    if random.random() < 0.3:
        prices["cached_input_price"] = random.choice((0.0, input_usd / 2, input_usd * 2))
    nanos = {name: round(usd * 1_000_000_000) for name, usd in prices.items()}
    return (
        Rate(nanos["input_price"], nanos["output_price"], nanos.get("cached_input_price")),
        prices,
    )


def _route(random: Random, id_: str, names: list[str], wider: str) -> dict[str, Any]:
    size = random.choice((1, 2, 3, 3, 4, 6, 8))
    proposers = [random.choice(names) for _ in range(size)]
    if random.random() < 0.2:
        proposers = proposers[:1] * size  # One model, asked several times.
    panel: dict[str, Any] = {
        "quorum": random.randint(1, size),
        "grace_share": random.choice((0.0, 0.25, 2.0)),
        "grace_s": random.choice((0.0, 0.02, 0.1)),
        "deadline_s": random.choice((0.15, 0.3, 0.6)),
        "critique": random.random() < 0.4,
        "early_stop": random.random() < 0.6,
        "proposal_tokens": random.choice((16, 64, 4_096)),
    }
    if random.random() < 0.04:
        panel["size"] = size  # The best of all that there are.
    else:
        panel["proposers"] = proposers
    if random.random() < 0.8:
        panel["aggregator"] = random.choice(names)
    route: dict[str, Any] = {"id": id_, "panel": panel}
    if wider:
        route["escalate_to"] = wider
        route["escalate_on"] = random.sample(TRIGGERS, random.randint(2, len(TRIGGERS)))
        route["max_escalations"] = random.choice((0, 1, 2, 4, 4))
        if random.random() < 0.1:
            route["plans"] = [PREPAID]
    return route
