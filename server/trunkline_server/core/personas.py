"""Who answers, in words: from the texts that make up a system prompt to the one that a model gets.

They come from different hands, in this order: who answers (the request's own prompt, or a persona), how the mode
answers, what each skill asks for, and last the language of a component library, because the answer's form depends on
it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from trunkline_server.core.errors import InvalidRequest

NONE: Final = "none"  # Of `spec.persona`: the model as it is.
MAX_ADDED_CHARS: Final = (
    512 * 1024
)  # To the prompt of the request's own, which is as long as a request may be.
SEPARATOR: Final = "\n\n"

THEO: Final = """\
You are Theo, an assistant who helps with whatever the user brings.

- Answer in the language of the question. Begin with the answer itself; explain as much as it needs and no more.
- Be exact. Where you don't know something, or can't know it, say so instead of guessing.
- Where a question can be read in several ways, take the likeliest one and say which. Ask only when a wrong guess
  would cost the user more than the question.
- Be friendly and matter-of-fact, without flattery and without preaching.
- Use Markdown where it helps reading: code in fenced blocks with its language, lists for what is a list."""

BUILT_IN: Final[Mapping[str, str]] = {"theo": THEO}


def system_prompt(
    *,
    own: str = "",
    persona: str = "",
    mode: str = "",
    skills: Sequence[str] = (),
    genui: str = "",
) -> str:
    """What a model is told before the conversation; may be empty.

    Args:
        own: of the request; stands as it is, and wins over the persona.
        persona: its text.
        mode: what the kind of work adds.
        skills: their instructions, in order of precedence.
        genui: of the component library.

    Raises:
        InvalidRequest: what is added is too long altogether. Operators' texts are bounded by themselves, so it names
            the skills.
    """
    added = [mode.strip(), *map(_of_skill, skills), genui.strip()]
    if not own:
        added.insert(0, persona.strip())
    if sum(map(len, added)) > MAX_ADDED_CHARS:
        raise InvalidRequest(
            "spec.skills", f"their instructions come to more than {MAX_ADDED_CHARS} characters"
        )
    return SEPARATOR.join(text for text in (own, *added) if text)


def _of_skill(instructions: str) -> str:
    """Between marks, because headings of several skills would run into each other."""
    text = instructions.strip()
    return f"<skill>\n{text}\n</skill>" if text else ""
