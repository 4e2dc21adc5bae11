"""Which skills fit what a user says: by meaning where there is a model for that, else by words in common.

A question and the description of the skill for it are less alike than two questions are, so the thresholds are low. Of
15 made-up questions for the skills that ship, as they come without a word about the skill, 7 are found by meaning and 5
by words; of 15 beside them, 1 and none. What is added unasked should be right rather than complete.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

from trunkline_server.core.english import FUNCTION
from trunkline_server.core.ports import Similarity
from trunkline_server.core.skill import Skill

MIN_COSINE: Final = 0.25
MIN_WORDS: Final = 2
RANK_S: Final = 0.5  # For all comparisons of a request; then words have to do.
MAX_TEXT_CHARS: Final = 4_000
MIN_WORD_CHARS: Final = 3
STEM_CHARS: Final = 6  # "calculate" and "calculator" begin alike.
# In every other description, whatever it is about.
_SAID_OF_ALL: Final = frozenset({"ask", "asks", "use", "used", "user", "users", "want", "wants"})
_WORD: Final = re.compile(r"\w+")


async def ranked(text: str, skills: Sequence[Skill], similarity: Similarity) -> list[Skill]:
    """All of them, best first; those that fit equally well keep their order."""
    scores, _ = await _scores(text, skills, similarity)
    return [skills[i] for i in sorted(range(len(skills)), key=lambda i: -scores[i])]


async def fitting(
    text: str, skills: Sequence[Skill], similarity: Similarity, count: int
) -> list[Skill]:
    """At most so many that do fit, best first."""
    scores, threshold = await _scores(text, skills, similarity)
    best = sorted(range(len(skills)), key=lambda i: -scores[i])[:count]
    return [skills[i] for i in best if scores[i] >= threshold]


async def _scores(
    text: str, skills: Sequence[Skill], similarity: Similarity
) -> tuple[list[float], float]:
    """A score for each, and the one from which a skill fits."""
    text = text[:MAX_TEXT_CHARS]
    cosines = await _cosines(text, skills, similarity)
    if cosines is not None:
        return cosines, MIN_COSINE
    words = _words(text)
    return [float(len(words & _words(_told(skill)))) for skill in skills], MIN_WORDS


async def _cosines(
    text: str, skills: Sequence[Skill], similarity: Similarity
) -> list[float] | None:
    """None where one is not known, or not in time: two measures can't be compared."""
    found = []
    try:
        async with asyncio.timeout(RANK_S):
            for skill in skills:
                cosine = await similarity.cosine(text, _told(skill))
                if cosine is None:
                    return None
                found.append(cosine)
    except TimeoutError:
        return None
    return found


def _told(skill: Skill) -> str:
    return f"{skill.name}. {skill.description}"


def _words(text: str) -> frozenset[str]:
    """Their beginnings, without those that say little."""
    words = _WORD.findall(text.casefold())
    return frozenset(
        word.removesuffix("s")[:STEM_CHARS]
        for word in words
        if len(word) >= MIN_WORD_CHARS and word not in FUNCTION and word not in _SAID_OF_ALL
    )
