"""The order of what makes up a system prompt, and what wins over what."""

import pytest

from trunkline_server.core.errors import InvalidRequest
from trunkline_server.core.personas import BUILT_IN, MAX_ADDED_CHARS, THEO, system_prompt


def test_all_parts_stand_in_their_order():
    assert system_prompt(
        persona="I am Theo.", mode="Be brief.", skills=["Do a.", "Do b."], genui="Write UI."
    ) == (
        "I am Theo.\n\nBe brief.\n\n<skill>\nDo a.\n</skill>\n\n<skill>\nDo b.\n</skill>\n\nWrite UI."
    )


def test_the_requests_own_prompt_wins_over_the_persona_and_over_nothing_else():
    assert system_prompt(own="Mine.", persona="I am Theo.", mode="Be brief.", skills=["Do a."]) == (
        "Mine.\n\nBe brief.\n\n<skill>\nDo a.\n</skill>"
    )


def test_the_requests_own_prompt_is_left_as_it_was_written():
    assert system_prompt(own="  Mine.\n\n") == "  Mine.\n\n"


def test_empty_parts_leave_no_gaps():
    assert system_prompt() == ""
    assert system_prompt(persona=" \n", mode="", skills=["", " "], genui="\n") == ""
    assert system_prompt(mode="\nBe brief.\n", skills=[""]) == "Be brief."


def test_what_is_added_is_bounded_and_the_requests_own_prompt_does_not_count():
    most = "x" * (MAX_ADDED_CHARS - len("<skill>\n\n</skill>"))

    assert len(system_prompt(own="x" * MAX_ADDED_CHARS, skills=[most])) == 2 * MAX_ADDED_CHARS + 2
    with pytest.raises(InvalidRequest) as refused:
        system_prompt(skills=[most, "y"])

    assert [v.field for v in refused.value.violations] == ["spec.skills"]


def test_theo_ships():
    assert BUILT_IN == {"theo": THEO}
    assert system_prompt(persona=THEO) == THEO
