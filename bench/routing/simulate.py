"""Runs a policy through a world."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from bench.routing.policies import Policy
from bench.routing.worlds import EXHAUSTED_S, STEP_S, World


@dataclass(frozen=True, slots=True)
class Result:
    """Means over the requests of one run.

    Attributes:
        loss_s: as it came about.
        expected_loss_s: of the orders that were chosen, given the conditions at each arrival: the luck taken out.
        attempts: 1 and more.
    """

    loss_s: float
    expected_loss_s: float
    attempts: float


def simulate(world: World, policy: Policy) -> Result:
    """The policy learns of an attempt when it ends, which may be after requests that came later.

    Raises:
        ValueError: an order did not name every candidate once.
    """
    offers, elapsed_s, failed, moments = world.offers, world.elapsed_s, world.failed, world.moments
    names = [offer.name for offer in offers]
    index = {name: i for i, name in enumerate(names)}
    under_way: list[tuple[float, int, str, float, bool]] = []
    losses_s = expected_s = 0.0
    attempts = 0
    indices: dict[tuple[str, ...], list[int]] = {}
    for request, now_s in enumerate(world.arrivals_s):
        while under_way and under_way[0][0] <= now_s:
            ended_s, _, name, took_s, has_failed = heappop(under_way)
            policy.observe(ended_s, name, took_s, has_failed)
        order = tuple(policy.order(now_s, f"{world.seed}-{request}", offers))
        numbers = indices.get(order)
        if numbers is None:
            numbers = indices[order] = _numbers(order, index)
        expected_s += moments[int(now_s / STEP_S)].expected_loss_s(numbers)
        at_s = now_s
        row = request * len(names)
        for i in numbers:
            took_s, has_failed = elapsed_s[row + i], bool(failed[row + i])
            at_s += took_s
            attempts += 1
            heappush(under_way, (at_s, attempts, names[i], took_s, has_failed))
            if not has_failed:
                losses_s += at_s - now_s + offers[i].known_loss_s
                break
        else:
            losses_s += at_s - now_s + EXHAUSTED_S
    requests = len(world.arrivals_s)
    return Result(losses_s / requests, expected_s / requests, attempts / requests)


def expected_loss_s(world: World, order: Sequence[str]) -> float:
    """What `Result.expected_loss_s` would be for a policy that always chooses this order."""
    numbers = _numbers(order, {offer.name: i for i, offer in enumerate(world.offers)})
    arrivals = Counter(int(now_s / STEP_S) for now_s in world.arrivals_s)
    total_s = sum(
        count * world.moments[step].expected_loss_s(numbers) for step, count in arrivals.items()
    )
    return total_s / len(world.arrivals_s)


def _numbers(order: Sequence[str], index: dict[str, int]) -> list[int]:
    if len(order) != len(index) or set(order) != set(index):
        raise ValueError(f"an order must name every candidate once: {order}")
    return [index[name] for name in order]
