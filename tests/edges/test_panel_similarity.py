"""Panels whose answers are compared by the model: over real sockets, by the service as it is put together."""

import asyncio
from typing import Any, Final

import pytest

from tests.edges.test_panels import AGGREGATOR, QUESTION, World, completed, question, says, world
from trunkline.v1.completion_pb2 import Completion

pytestmark = pytest.mark.once

STOPS: Final = {"early_stop": True, "quorum": 2}
BOILS: Final = "Water boils at 100 degrees Celsius at sea level."
ALSO_BOILS: Final = "At sea level, water boils at 100 degrees Celsius."


def models(first: str, second: str) -> dict[str, Any]:
    """Two who say so, one who takes too long, and one who aggregates."""
    return {
        "a": says(first),
        "b": says(second),
        "c": says("Whatever.", after_s=5),
        "z": says("Of all."),
    }


async def asked_until_known(found: World) -> Completion:
    """The first panels may be answered before the model is loaded."""
    for _ in range(40):
        end = completed(await found.stream())
        if end.panel.stopped_early:
            break
        await asyncio.sleep(0.1)
    return end


async def test_the_same_in_other_words_needs_no_aggregator():
    async with world(models(BOILS, ALSO_BOILS), STOPS) as found:
        first = completed(await found.stream())
        end = await asked_until_known(found)

    assert first.panel.members
    assert end.panel.stopped_early
    assert [member.status for member in end.panel.members] == ["used", "unused", "cancelled"]
    assert [part.text for part in end.choices[0].message.parts] == [BOILS]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(BOILS.replace("100", "90"), id="number"),
        pytest.param(BOILS.replace("Celsius", "Fahrenheit"), id="name"),
        pytest.param(BOILS.replace("boils", "does not boil"), id="negation"),
        pytest.param("Whales breathe air through a hole on top of the head.", id="topic"),
    ],
)
async def test_other_claims_are_aggregated_however_alike_their_texts_are(other):
    scripts = models(BOILS, other)
    async with world({**scripts, "c": says(ALSO_BOILS, after_s=0.2)}, STOPS) as found:
        ends = [completed(await found.stream()) for _ in range(2)]
        # By now the model has been loaded, if anything was to be compared.
        await asyncio.sleep(0.5)
        ends.append(completed(await found.stream()))

        assert len(found.asked("z", AGGREGATOR)) == 3
    assert [end.panel.stopped_early for end in ends] == [False] * 3


async def test_a_panel_whose_answers_are_about_different_things_asks_a_wider_one():
    routes = [
        {
            "id": "p",
            "panel": {"proposers": ["a", "b"], "aggregator": "z"},
            "escalate_to": "wide",
            "escalate_on": ["disagreement"],
        },
        {"id": "wide", "panel": {"proposers": ["a", "d"], "aggregator": "z"}},
    ]
    scripts = models(
        "Mitochondria produce most of the energy of a cell in the form of ATP.",
        "Our return policy allows you to send items back within a month of purchase.",
    )
    async with world({**scripts, "d": says("ATP.")}, routes=routes) as found:
        for _ in range(40):
            end = completed(await found.stream(question("p", QUESTION)))
            if end.panel.escalated:
                break
            await asyncio.sleep(0.1)

    assert (end.panel.route, end.panel.escalation_reason) == ("wide", "disagreement")
