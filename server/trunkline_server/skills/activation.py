"""`activate_skill`: the tool by which a model takes up a skill itself, and reads what belongs to it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from trunkline.v1.completion_spec_pb2 import Tool
from trunkline_server.core.skill import Skill
from trunkline_server.core.tools import ServerTool, ToolContext, ToolOutcome
from trunkline_server.skills.folder import Loaded

ACTIVATE_SKILL: Final = "activate_skill"
TIMEOUT_S: Final = 5.0  # It only looks into memory.
MAX_TOLD_CHARS: Final = 300  # Of each skill's description.
# Some providers refuse a tool's description from 1,024 characters on, so the list stands in that of its argument.
DESCRIPTION: Final = (
    "Loads the instructions of a skill, which hold for the rest of this answer. Call it first, and only, when one of "
    "the skills fits what the user asks for."
)


def activate_skill(skills: Sequence[Loaded]) -> ServerTool:
    """The tool for one request.

    Args:
        skills: those to choose from, at least one.
    """
    by_slug = {loaded.skill.slug: loaded for loaded in skills}
    tool = Tool(
        name=ACTIVATE_SKILL, description=DESCRIPTION, parameters_schema_json=_schema(by_slug)
    )
    return ServerTool(tool, ActivateSkill(by_slug), TIMEOUT_S, is_idempotent=True)


class ActivateSkill:
    """Gives instructions and resources of some skills."""

    def __init__(self, skills: Mapping[str, Loaded]) -> None:
        self._skills = skills

    async def run(self, arguments_json: str, context: ToolContext, until_s: float) -> ToolOutcome:
        """The instructions of `skill`, or the text of its `resource`."""
        arguments = _arguments(arguments_json)
        loaded = self._skills.get(str(arguments.get("skill", "")))
        if loaded is None:
            return ToolOutcome("There is no such skill.", is_error=True)
        name = arguments.get("resource") or ""
        if not name:
            return ToolOutcome(_instructions(loaded.skill), skill=loaded.skill)
        text = loaded.resources.get(str(name))
        if text is None:
            return ToolOutcome(f"This skill has {_files(loaded.skill)}.", is_error=True)
        return ToolOutcome(text)


def _schema(skills: Mapping[str, Loaded]) -> str:
    told = "\n".join(f"- {slug}: {_short(item.skill)}" for slug, item in skills.items())
    properties: dict[str, Any] = {
        "skill": {
            "type": "string",
            "enum": list(skills),
            "description": f"Which one. There are:\n{told}",
        }
    }
    if any(item.resources for item in skills.values()):
        properties["resource"] = {
            "type": "string",
            "description": "A file that the skill's instructions name: its text is given instead of them.",
        }
    schema = {
        "type": "object",
        "properties": properties,
        "required": ["skill"],
        "additionalProperties": False,
    }
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _short(skill: Skill) -> str:
    text = skill.description
    return text if len(text) <= MAX_TOLD_CHARS else f"{text[: MAX_TOLD_CHARS - 1]}…"


def _instructions(skill: Skill) -> str:
    if not skill.resources:
        return skill.instructions
    note = f"[{ACTIVATE_SKILL} with `resource` reads what belongs to this skill: {_files(skill)}.]"
    return f"{skill.instructions}\n\n{note}"


def _files(skill: Skill) -> str:
    return ", ".join(skill.resources) if skill.resources else "no files"


def _arguments(arguments_json: str) -> Mapping[str, Any]:
    """The loop has checked them against the schema."""
    arguments = json.loads(arguments_json or "{}")
    return arguments if isinstance(arguments, dict) else {}
