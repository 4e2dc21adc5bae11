"""Trunkline with panels. The model `burst` is a panel of six here, so that every row can be measured."""

from gateways import Gateway, Place, trunkline

SIZES = (1, 3, 6)
QUORUMS = {3: 2, 6: 4}
AGGREGATOR = 6  # The place of its delay in a prompt, behind those of the proposers.
DEADLINE_S = 20.0  # For proposals, the default.
SHORT_S = 1.0  # One that cuts off no proposer that answers at all.

PLAIN = """
[[models]]
id = "plain"
provider = "bench"
model = "burst"
"""
MODEL = """
[[models]]
id = "told-{place}"
provider = "bench"
"""
ROUTE = """
[[routes]]
id = "{route}"
panel = {{ proposers = [{proposers}], quorum = {quorum}, aggregator = "{aggregator}", {more} }}
"""


def cost_route(size: int, *, critiques: bool = False) -> str:
    """Waits for all of so many proposers, which are one model that answers at once."""
    return f"mix-{size}" + "-critique" * critiques


def quorum_route(size: int) -> str:
    """Goes on without proposers who are late, as panels do by default."""
    return f"quorum-{size}"


def all_route(size: int, *, is_short: bool = False) -> str:
    """Waits for every proposer, until the deadline."""
    return f"all-{size}" + "-short" * is_short


def gateway(place: Place) -> Gateway:
    plain = trunkline.gateway(place)
    configuration = place.folder / "trunkline.toml"
    text = configuration.read_text()
    text += PLAIN
    for size in SIZES:
        for critiques in (False, True):
            more = f"critique = {str(critiques).lower()}"
            models = ["burst"] * (size + 1)
            text += _route(cost_route(size, critiques=critiques), models, size, more)
    text += "".join(MODEL.format(place=number) for number in range(AGGREGATOR + 1))
    for size, quorum in QUORUMS.items():
        models = [f"told-{number}" for number in (*range(size), AGGREGATOR)]
        text += _route(quorum_route(size), models, quorum, f"deadline_s = {DEADLINE_S}")
        text += _route(all_route(size), models, size, f"deadline_s = {DEADLINE_S}")
        text += _route(all_route(size, is_short=True), models, size, f"deadline_s = {SHORT_S}")
    configuration.write_text(text)
    return Gateway(
        command=plain.command,
        http_port=plain.http_port,
        grpc_port=plain.grpc_port,
        ready_path=plain.ready_path,
        environment=plain.environment,
        models={"burst": cost_route(SIZES[-1])},
    )


def _route(route: str, models: list[str], quorum: int, more: str) -> str:
    """Of all models the last one aggregates."""
    *proposers, aggregator = models
    named = ", ".join(f'"{model}"' for model in proposers)
    return ROUTE.format(
        route=route, proposers=named, quorum=quorum, aggregator=aggregator, more=more
    )
