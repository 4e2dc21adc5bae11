"""What a component's parameter takes, as a library writes it: `string`, `"row" | "column"`, `(Link | Text)[]`."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

STRING: Final = "string"  # Shown as it is, and never read as anything else.
NUMBER: Final = "number"
INTEGER: Final = "integer"
BOOLEAN: Final = "boolean"
SCALAR: Final = "scalar"  # A string, a number or a boolean, shown as it is.
OBJECT: Final = "object"
URL: Final = "url"
IMAGE: Final = "image"  # The address of one, or one itself as a `data:` URL.
MARKDOWN: Final = "markdown"
ANY: Final = "any"  # Nobody knows what is made of it.
STATE: Final = "state"  # A `$name`, to read and write.
ACTION: Final = "action"
COMPONENT: Final = "component"  # Any one.
ENTRY: Final = "entry"  # What stands in an object; no type of a library's.

PLAIN: Final = frozenset({STRING, NUMBER, INTEGER, BOOLEAN, SCALAR, OBJECT})
# Of these only what is known from the text is let through: what is computed could become anything.
GUARDED: Final = frozenset({URL, IMAGE, MARKDOWN, ANY})
WORDS: Final = PLAIN | GUARDED | {STATE, ACTION, COMPONENT}
MAX_LISTS: Final = 4  # Within each other.

_PART: Final = re.compile(r'"([^"\\]{0,64})"\Z|([A-Za-z_][A-Za-z0-9_]*)\Z')


@dataclass(frozen=True, slots=True)
class Slot:
    """A type.

    Attributes:
        words: those above that it allows.
        components: that it allows by name.
        choices: strings that it allows.
        lists: how many lists it is within.
    """

    words: frozenset[str] = frozenset()
    components: frozenset[str] = frozenset()
    choices: frozenset[str] = frozenset()
    lists: int = 0

    @property
    def item(self) -> "Slot":
        """Of a list: what is in it."""
        return replace(self, lists=self.lists - 1)

    @property
    def takes_computed(self) -> bool:
        """May a value stand here that is known only when it is shown?"""
        return not self.words & GUARDED and bool(self.words & (PLAIN | {ENTRY}) or self.choices)

    def takes_component(self, name: str) -> bool:
        return not self.lists and bool(self.words & {COMPONENT, ENTRY} or name in self.components)


ANY_COMPONENT: Final = Slot(frozenset({COMPONENT}))
AN_ENTRY: Final = Slot(frozenset({ENTRY}))
AN_ACTION: Final = Slot(frozenset({ACTION}))
AN_ADDRESS: Final = Slot(frozenset({URL}))


def slot_from(text: str, components: Collection[str]) -> Slot:
    """Read a type.

    Args:
        components: the names that it may use.

    Raises:
        ValueError: what is wrong with it.
    """
    bare = text.strip()
    lists = 0
    while bare.endswith("[]"):
        bare = bare[:-2].rstrip()
        lists += 1
    if lists > MAX_LISTS:
        raise ValueError(f"more than {MAX_LISTS} lists within each other")
    if bare.startswith("(") and bare.endswith(")"):
        bare = bare[1:-1]
    words, names, choices = set(), set(), set()
    for part in bare.split("|"):
        match = _PART.match(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()[:64]!r} is neither a name nor a choice in quotes")
        choice, word = match.groups()
        if choice is not None:
            choices.add(choice)
        elif word in WORDS:
            words.add(word)
        elif word in components:
            names.add(word)
        else:
            raise ValueError(f"{word[:64]!r} is neither a type nor a component")
    if words & GUARDED and (len(words) > 1 or choices or names):
        # Else what fails as the one would pass as the other, and be used as the first.
        raise ValueError("url, image, markdown and any stand alone")
    return Slot(frozenset(words), frozenset(names), frozenset(choices), lists)
