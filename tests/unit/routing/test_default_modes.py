"""Modes: those that ship, and what an operator makes of them."""

import msgspec
import pytest

from trunkline.v1.completion_spec_pb2 import ReasoningEffort
from trunkline_server.config import ModeSettings
from trunkline_server.core.modes import Mode
from trunkline_server.routing.default_modes import DEFAULT_MODES, modes_of

SHIPPED = {mode.id: mode for mode in DEFAULT_MODES}


def _given(**values):
    return msgspec.structs.asdict(msgspec.convert(values, ModeSettings))


def test_without_configuration_all_modes_of_theo_are_there():
    modes = modes_of([])

    assert dict(modes.by_id) == SHIPPED
    assert list(modes.by_id) == [
        *("fast", "think", "code", "image", "video", "research", "roast", "genui"),
    ]
    assert modes.promotes is False


def test_what_takes_long_is_a_job_and_what_costs_money_is_chosen_with_care():
    assert {name for name, mode in SHIPPED.items() if mode.is_job} == {"video", "research"}
    assert {name for name, mode in SHIPPED.items() if mode.is_costly} == {
        *("image", "video", "research"),
    }
    assert {name for name, mode in SHIPPED.items() if mode.cache_s == 0} == {
        *("image", "video", "research"),
    }


def test_each_engine_of_theo_is_that_of_one_mode():
    assert [(mode.engine, mode.id) for mode in DEFAULT_MODES if mode.engine] == [
        ("theo-1-flash", "fast"),
        ("theo-1-reason", "think"),
        ("theo-1-code", "code"),
        ("theo-1-create", "image"),
    ]


def test_setting_that_is_left_out_stays_as_it_ships():
    modes = modes_of([_given(id="think", models=["o5"], cache_s=0)], promotes=True)

    think = SHIPPED["think"]
    assert modes.by_id["think"] == Mode(
        "think",
        label=think.label,
        description=think.description,
        models=("o5",),
        engine=think.engine,
        system_prompt=think.system_prompt,
        effort=think.effort,
        max_tokens=think.max_tokens,
        max_s=think.max_s,
        cache_s=0,
        artifacts=think.artifacts,
        offers_follow_ups=True,
    )
    assert {n: m for n, m in modes.by_id.items() if n != "think"} == {
        n: m for n, m in SHIPPED.items() if n != "think"
    }
    assert modes.promotes is True


def test_every_setting_of_a_mode_of_ones_own_is_read():
    modes = modes_of(
        [
            _given(
                id="legal",
                route="lawyers",
                engine="theo-1-law",
                label="Legal",
                description="Contracts.",
                system_prompt="Cite the clause.",
                effort="xhigh",
                temperature=0.5,
                max_output_tokens=900,
                max_hops=3,
                max_tokens=5_000,
                max_cost_usd=0.25,
                max_s=30,
                tools=["find_clause"],
                cache_s=60,
                artifacts=["document"],
                follow_ups=True,
            )
        ]
    )

    assert modes.by_id["legal"] == Mode(
        "legal",
        route="lawyers",
        engine="theo-1-law",
        label="Legal",
        description="Contracts.",
        system_prompt="Cite the clause.",
        effort=ReasoningEffort.REASONING_EFFORT_XHIGH,
        temperature=0.5,
        max_output_tokens=900,
        max_hops=3,
        max_tokens=5_000,
        max_cost_nanos=250_000_000,
        max_s=30,
        tools=("find_clause",),
        cache_s=60,
        artifacts=frozenset({"document"}),
        offers_follow_ups=True,
    )


def test_mode_can_be_disabled_but_for_the_one_that_is_always_right():
    assert "roast" not in modes_of([_given(id="roast", enabled=False)]).by_id

    with pytest.raises(ValueError, match="'fast' can't be disabled"):
        modes_of([_given(id="fast", enabled=False)])
