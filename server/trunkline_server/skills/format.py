"""`SKILL.md` as it is written: YAML between two lines of dashes, then instructions in Markdown.

The format is the open one of Agent Skills, so a skill that was written for another agent is one here. What this gateway
wants to know beyond it stands under `metadata`, which the format leaves to everybody's own use.

Source: https://agentskills.io/specification
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from trunkline_server.core.usage import CHARS_PER_TOKEN

MAX_NAME_CHARS: Final = 64
MAX_DESCRIPTION_CHARS: Final = 1_024
MAX_INSTRUCTIONS_TOKENS: Final = 5_000
MAX_HEAD_CHARS: Final = 16 * 1024
MAX_WORD_CHARS: Final = 128  # Title, category, version.
MAX_NAMES: Final = 16  # Of tools, and of models.
MAX_INTENSITY: Final = 100

FENCE: Final = "---"
NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
TOOL: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MODEL: Final = re.compile(r"[^\s,]{1,256}")


class UnusableSkill(ValueError):
    """The skill can't be used. The text says why, for whoever wrote it."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a SKILL.md says.

    Attributes:
        title: for people; `name` is for programs.
        tools, models: names, unchecked.
    """

    name: str
    description: str
    instructions: str
    title: str
    category: str = ""
    version: str = ""
    tools: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    intensity: int | None = None


def read(text: str) -> Written:
    """Read the text of a SKILL.md. Fields that this gateway has no use for are left alone.

    Raises:
        UnusableSkill.
    """
    head, instructions = _split(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    fields = _fields(head)
    name = _text(fields, "name", MAX_NAME_CHARS, is_needed=True)
    if NAME.fullmatch(name) is None:
        raise UnusableSkill("name: small letters, digits, and single hyphens between them")
    metadata = fields.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise UnusableSkill("metadata: is no mapping")
    return Written(
        name=name,
        description=_text(fields, "description", MAX_DESCRIPTION_CHARS, is_needed=True),
        instructions=_instructions(instructions),
        title=_text(metadata, "title", MAX_WORD_CHARS) or name.replace("-", " ").capitalize(),
        category=_text(metadata, "category", MAX_WORD_CHARS),
        version=_text(metadata, "version", MAX_WORD_CHARS),
        tools=_names(metadata, "tools", TOOL),
        models=_names(metadata, "models", MODEL),
        intensity=_intensity(metadata),
    )


def _split(text: str) -> tuple[str, str]:
    opening, _, rest = text.partition("\n")
    if opening.rstrip() != FENCE:
        raise UnusableSkill(f"does not begin with a line {FENCE!r}")
    end = re.search(rf"^{FENCE}[ \t]*$", rest, re.MULTILINE)
    if end is None:
        raise UnusableSkill(f"has no second line {FENCE!r} after its fields")
    if end.start() > MAX_HEAD_CHARS:
        raise UnusableSkill(f"its fields take more than {MAX_HEAD_CHARS} characters")
    return rest[: end.start()], rest[end.end() :]


def _fields(head: str) -> Mapping[str, Any]:
    try:
        # Makes nothing but text, lists and mappings: a version 1.10 is no number, and a name "no" is not false.
        found = yaml.load(head, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = 0 if error.problem_mark is None else error.problem_mark.line + 2
        raise UnusableSkill(f"line {line}: is no YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UnusableSkill(f"its fields are no YAML: {type(error).__name__}") from error
    if not isinstance(found, Mapping):
        raise UnusableSkill("its fields are no mapping")
    return found


def _text(fields: Mapping[str, Any], key: str, limit: int, *, is_needed: bool = False) -> str:
    """On one line, whatever YAML made of it."""
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise UnusableSkill(f"{key}: is no text")
    value = " ".join(value.split())
    if is_needed and not value:
        raise UnusableSkill(f"{key}: is missing")
    if len(value) > limit:
        raise UnusableSkill(f"{key}: at most {limit} characters")
    if not value.isprintable():
        raise UnusableSkill(f"{key}: has characters that can't be printed")
    return value


def _names(metadata: Mapping[str, Any], key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """A list, or a text with commas or blanks between the names, each once."""
    value = metadata.get(key, "")
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UnusableSkill(f"metadata.{key}: is no list of names")
    names = list(dict.fromkeys(names))
    if len(names) > MAX_NAMES:
        raise UnusableSkill(f"metadata.{key}: at most {MAX_NAMES}")
    for name in names:
        if pattern.fullmatch(name) is None:
            raise UnusableSkill(f"metadata.{key}: {name[:64]!r} is no name")
    return tuple(names)


def _intensity(metadata: Mapping[str, Any]) -> int | None:
    value = _text(metadata, "intensity", MAX_WORD_CHARS)
    if not value:
        return None
    if re.fullmatch(r"[0-9]{1,3}", value) is None or int(value) > MAX_INTENSITY:
        raise UnusableSkill(f"metadata.intensity: a whole number from 0 to {MAX_INTENSITY}")
    return int(value)


def _instructions(text: str) -> str:
    text = text.strip()
    if not text:
        raise UnusableSkill("has no instructions below its fields")
    if len(text) > MAX_INSTRUCTIONS_TOKENS * CHARS_PER_TOKEN:
        raise UnusableSkill(
            f"its instructions are longer than {MAX_INSTRUCTIONS_TOKENS} tokens"
            f" ({MAX_INSTRUCTIONS_TOKENS * CHARS_PER_TOKEN} characters); move a part into a file beside it"
        )
    if "\0" in text:
        raise UnusableSkill("its instructions hold a NUL")
    return text
