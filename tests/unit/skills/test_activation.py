"""The tool by which a model takes up a skill."""

import json

import pytest

from trunkline.v1.completion_spec_pb2 import Tool
from trunkline_server.core.skill import Skill
from trunkline_server.core.tool_calls import Arguments
from trunkline_server.core.tools import ToolContext, ToolOutcome
from trunkline_server.skills.activation import DESCRIPTION, activate_skill
from trunkline_server.skills.folder import Loaded

PLAIN = Skill("plain", "Plain", "Writes plainly.", "1", "", "Write plainly.")
CODE = Skill("code", "Code", "é" * 1_024, "1", "", "See more.md.", resources=("a/b.md", "more.md"))
BOTH = [Loaded(PLAIN, {}), Loaded(CODE, {"a/b.md": "B.", "more.md": "More."})]


async def run(**arguments: object) -> ToolOutcome:
    """A call of the tool for both."""
    context = ToolContext("cmpl_1-0-c1", "req_1")
    return await activate_skill(BOTH).runner.run(json.dumps(arguments), context, 0.0)


def test_a_model_is_told_of_all_skills_and_may_name_no_other():
    found = activate_skill(BOTH)
    schema = json.loads(found.tool.parameters_schema_json)

    assert found.tool == Tool(
        name="activate_skill",
        description=DESCRIPTION,
        parameters_schema_json=found.tool.parameters_schema_json,
    )
    assert schema["properties"]["skill"]["enum"] == ["plain", "code"]
    assert schema["properties"]["skill"]["description"] == (
        f"Which one. There are:\n- plain: Writes plainly.\n- code: {'é' * 299}…"
    )
    # From 1,024 characters on some providers refuse it.
    assert len(DESCRIPTION) < 1_024
    assert found.is_idempotent

    arguments = Arguments(found.tool.parameters_schema_json)
    assert arguments.parse('{"skill": "plain"}') == ({"skill": "plain"}, "")
    assert arguments.parse('{"skill": "../code"}')[0] is None
    assert arguments.parse('{"resource": "more.md"}')[0] is None


def test_where_no_skill_has_files_none_can_be_asked_for():
    schema = json.loads(activate_skill(BOTH[:1]).tool.parameters_schema_json)

    assert list(schema["properties"]) == ["skill"]


async def test_a_call_gives_the_instructions_and_activates():
    assert await run(skill="plain") == ToolOutcome("Write plainly.", skill=PLAIN)
    assert await run(skill="plain", resource="") == ToolOutcome("Write plainly.", skill=PLAIN)
    assert await run(skill="code") == ToolOutcome(
        "See more.md.\n\n"
        "[activate_skill with `resource` reads what belongs to this skill: a/b.md, more.md.]",
        skill=CODE,
    )


async def test_a_file_of_a_skill_is_given_by_its_name_and_activates_nothing():
    assert await run(skill="code", resource="a/b.md") == ToolOutcome("B.")


@pytest.mark.parametrize(
    "name", ["SKILL.md", "../code/more.md", "/etc/passwd", "./more.md", "a//b.md", "a", 7, ["x"]]
)
async def test_what_is_no_file_of_a_skill_is_not_there(name):
    assert await run(skill="code", resource=name) == ToolOutcome(
        "This skill has a/b.md, more.md.", is_error=True
    )
    assert await run(skill="plain", resource=name) == ToolOutcome(
        "This skill has no files.", is_error=True
    )


async def test_a_skill_that_was_not_offered_is_not_there():
    gone = ToolOutcome("There is no such skill.", is_error=True)

    assert [await run(skill=slug) for slug in ("other", 7, None)] == [gone] * 3
    assert await run() == gone
