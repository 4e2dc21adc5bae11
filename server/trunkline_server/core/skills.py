"""All skills of a server: what the use case needs of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from trunkline_server.core.skill import Skill
from trunkline_server.core.tools import ServerTool

__all__ = ["Skill", "SkillSet", "Skills"]


@dataclass(frozen=True, slots=True)
class SkillSet:
    """What a request is given.

    Attributes:
        active: their instructions are added right away, in order of precedence.
        chooser: a tool by which the model activates further ones itself; None: there is nothing to choose.
    """

    active: tuple[Skill, ...]
    chooser: ServerTool | None = None


class Skills(Protocol):
    """All skills of a server, and who has installed which."""

    def knows(self, owner: str) -> bool:
        """Has this organisation any installed skill? Answers from memory, for every request."""
        ...

    async def choose(
        self, owner: str, named: Sequence[str], text: str, *, can_call: bool
    ) -> SkillSet:
        """The skills of one request: those it names, and of the installed ones those that fit.

        Args:
            named: slugs, in order of precedence.
            text: the last user turn.
            can_call: whoever answers can call tools, and so choose by itself.

        Raises:
            InvalidRequest: a slug is unknown; names `spec.skills[i]`.
            StorageUnavailable.
        """
        ...
