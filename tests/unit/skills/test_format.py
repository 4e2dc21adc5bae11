"""What a SKILL.md may say, and what is said to whoever wrote another one."""

import pytest

from trunkline_server.skills.format import (
    MAX_HEAD_CHARS,
    MAX_INSTRUCTIONS_TOKENS,
    UnusableSkill,
    Written,
    read,
)

LEAST = "---\nname: a-b\ndescription: Does it.\n---\nDo it.\n"
MAX_CHARS = MAX_INSTRUCTIONS_TOKENS * 4


def with_fields(*lines: str) -> str:
    """The least skill, with these fields too."""
    return LEAST.replace("\n---\nDo", "\n" + "\n".join(lines) + "\n---\nDo")


def test_the_least_skill_has_a_name_a_description_and_instructions():
    assert read(LEAST) == Written("a-b", "Does it.", "Do it.", title="A b")


def test_all_fields_are_read_and_those_of_other_agents_left_alone():
    text = """\
---
name: pdf-forms
description: >-
  Fills in forms:
  all of them.
license: Apache-2.0
compatibility: needs a printer
allowed-tools: Bash(git:*) Read
model: somebody
metadata:
  author: somebody
  title: "Forms & more"
  category: writing
  version: 1.10
  tools: calculator, lookup calculator
  models:
    - a/b
    - gpt-5-mini
  intensity: 3
---

# Forms

---
Fill them in.

"""
    assert read(text) == Written(
        name="pdf-forms",
        description="Fills in forms: all of them.",
        instructions="# Forms\n\n---\nFill them in.",
        title="Forms & more",
        category="writing",
        version="1.10",
        tools=("calculator", "lookup"),
        models=("a/b", "gpt-5-mini"),
        intensity=3,
    )


def test_line_ends_and_marks_of_other_systems_do_not_matter():
    assert read("\ufeff" + LEAST.replace("\n", "\r\n").replace("---", "---  ")) == read(LEAST)


def test_words_that_yaml_takes_for_values_stay_words():
    written = read(with_fields("metadata: {title: no, version: 010, category: null}"))

    assert (written.title, written.version, written.category) == ("no", "010", "null")


def test_aliases_that_multiply_cost_nothing():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)]

    assert read(with_fields(*lines)) == read(LEAST)


PROBLEMS = {
    "no fields": ("Do it.", "does not begin with a line '---'"),
    "no end of them": ("---\nname: a\n", "has no second line '---' after its fields"),
    "too many of them": (
        f"---\nx: {'y' * MAX_HEAD_CHARS}\n---\nDo it.",
        "its fields take more than 16384 characters",
    ),
    "no YAML": (
        "---\nname: a\ndescription: Use when: always\n---\nDo it.",
        "line 3: is no YAML: mapping values are not allowed here",
    ),
    "a control character": (
        "---\nname: \x07\n---\nDo it.",
        "its fields are no YAML: ReaderError",
    ),
    "a deep nest": (
        f"---\nname: {'[' * 700}\n---\nDo it.",
        "its fields are no YAML: RecursionError",
    ),
    "a key that is no text": (
        "---\n? [a]\n: b\n---\nDo it.",
        "line 2: is no YAML: found unhashable key",
    ),
    "a list": ("---\n- name\n---\nDo it.", "its fields are no mapping"),
    "nothing": ("---\n---\nDo it.", "its fields are no mapping"),
    "no name": ("---\ndescription: x\n---\nDo it.", "name: is missing"),
    "no description": ("---\nname: a\n---\nDo it.", "description: is missing"),
    "a list for a name": ("---\nname: [a]\n---\nDo it.", "name: is no text"),
    "a long name": (f"---\nname: {'a' * 65}\n---\nDo it.", "name: at most 64 characters"),
    **{
        f"the name {name}": (
            f"---\nname: {name}\ndescription: x\n---\nDo it.",
            "name: small letters, digits, and single hyphens between them",
        )
        for name in ("A", "a_b", "-a", "a-", "a--b", "../a", "a/b", "ä")
    },
    "a long description": (
        f"---\nname: a\ndescription: {'x' * 1_025}\n---\nDo it.",
        "description: at most 1024 characters",
    ),
    "what can't be printed": (
        '---\nname: a\ndescription: "\\u202e"\n---\nDo it.',
        "description: has characters that can't be printed",
    ),
    "metadata that are none": (with_fields("metadata: [a]"), "metadata: is no mapping"),
    "tools that are none": (
        with_fields("metadata: {tools: {a: b}}"),
        "metadata.tools: is no list of names",
    ),
    "a tool that is a list": (
        with_fields("metadata: {tools: [[a]]}"),
        "metadata.tools: is no list of names",
    ),
    "a tool of another kind": (
        with_fields("metadata: {tools: 'Bash(git:*)'}"),
        "metadata.tools: 'Bash(git:*)' is no name",
    ),
    "many models": (
        with_fields(f"metadata: {{models: {' '.join(f'm{n}' for n in range(17))}}}"),
        "metadata.models: at most 16",
    ),
    **{
        f"the intensity {value}": (
            with_fields(f"metadata: {{intensity: {value}}}"),
            "metadata.intensity: a whole number from 0 to 100",
        )
        for value in ("101", "-1", "strong", "1.5", "٣")
    },
    "no instructions": (
        "---\nname: a\ndescription: x\n---\n \n",
        "has no instructions below its fields",
    ),
    "long instructions": (
        LEAST + "x" * MAX_CHARS,
        "its instructions are longer than 5000 tokens (20000 characters); move a part into a file beside it",
    ),
    "a NUL": (LEAST + "\0", "its instructions hold a NUL"),
}


@pytest.mark.parametrize(("text", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_is_wrong_is_said(text, problem):
    with pytest.raises(UnusableSkill) as refused:
        read(text)

    assert str(refused.value) == problem


def test_instructions_may_be_as_long_as_they_may():
    head, _, _ = LEAST.rpartition("Do it.\n")

    assert len(read(head + "x" * MAX_CHARS).instructions) == MAX_CHARS
