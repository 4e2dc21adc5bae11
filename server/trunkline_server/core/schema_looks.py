"""How much work it is to check a value against a JSON Schema, counted before it is done.

A schema of a few lines can ask for more looks at one value than there is time for: alternatives that refer to
alternatives, or to themselves once for each level of the value. Both are strangers' here, and whoever checks stands
still meanwhile. So the looks are counted, from above: each subschema that applies to a value is one.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

MAX_LOOKS: Final = 2_000_000  # At one value; a look takes some 80 ns.
MAX_STEPS: Final = 50_000  # Of counting itself, for each depth of values.
MAX_PATTERNS: Final = 32  # Of a schema: compiling one can take a millisecond and half a megabyte.
PATTERN_LOOKS: Final = 50  # What a regular expression takes, beside one look,
FANCY_LOOKS: Final = 1_000  # and one that may have to go back.
CHARS_PER_VALUE: Final = (
    16  # To an expression, text is as much as a value for each so many characters of it.
)
MULTIPLE_LOOKS: Final = 200  # Dividing exactly.
AGAIN: Final = (
    3  # By which what is not evaluated multiplies the looks: those of others are taken again.
)

_HERE: Final = ("not", "if", "then", "else")
_HERE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_HERE_MAPS: Final = ("dependentSchemas", "dependencies")
# For each of the values in a value, and for one of them.
_EACH: Final = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "items",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_EACH_MAPS: Final = ("patternProperties",)
_ONE_LISTS: Final = ("prefixItems", "items")
_ONE_MAPS: Final = ("properties",)
_KEPT_MAPS: Final = ("$defs", "definitions")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_ANCHORS: Final = ("$anchor", "$dynamicAnchor")
_FANCY: Final = ("(?=", "(?!", "(?<", "(?>", *(f"\\{digit}" for digit in range(1, 10)))

_Schema = Mapping[str, Any]


class UncheckableSchema(ValueError):
    """Nothing is checked against this one here."""


class Looks:
    """Counts for one schema.

    Args:
        schema: one that was found to be a JSON Schema; references may still lead nowhere.

    Raises:
        UncheckableSchema: even the smallest value would take too many looks, or nobody can tell how many.
    """

    def __init__(self, schema: _Schema) -> None:
        self._root = schema
        self._anchors: dict[str, list[_Schema]] = {}
        self._counts: dict[int, int] = {}
        self.patterns = 0
        for node in _nodes(schema):
            self.patterns += isinstance(node.get("pattern"), str)
            self.patterns += len(_map(node.get("patternProperties")))
            if node is not schema and isinstance(node.get("$id"), str):
                raise UncheckableSchema("holds schemas with ids of their own")
            for key in _ANCHORS:
                if isinstance(name := node.get(key), str):
                    self._anchors.setdefault(name, []).append(node)
        if self.patterns > MAX_PATTERNS:
            raise UncheckableSchema(f"holds more than {MAX_PATTERNS} regular expressions")
        if self._of_depth(0) > MAX_LOOKS:
            raise UncheckableSchema("takes too long to check anything against")

    def at(self, value: Any, chars: int) -> int:
        """At a value, at most; a number above `MAX_LOOKS` where it is not worth the counting.

        Args:
            chars: of its text.
        """
        values, depth, breadth = _extent(value)
        of_one = self._of_depth(depth)
        of_text = chars // CHARS_PER_VALUE * of_one if self.patterns else 0
        return min(values * of_one, self._of(depth, breadth)) + of_text

    def _of_depth(self, depth: int) -> int:
        """At one value on each level of so many."""
        if depth not in self._counts:
            self._counts[depth] = self._of(depth, 1)
        return self._counts[depth]

    def _of(self, depth: int, breadth: int) -> int:
        try:
            return _Counting(self, breadth).of(self._root, depth)
        except RecursionError:
            return MAX_LOOKS + 1

    def targets(self, reference: object) -> list[_Schema]:
        """What a reference may lead to. Raises: UncheckableSchema."""
        text = str(reference)
        own_id = str(self._root.get("$id", "")).removesuffix("#")
        if own_id and text.startswith(f"{own_id}#"):
            text = text.removeprefix(own_id)
        place, is_local, name = text.partition("#")
        if place or not is_local:
            raise UncheckableSchema("refers to what is not in it")
        if not name:
            return [self._root]
        if not name.startswith("/"):
            return self._anchors.get(name, [])
        found: Any = self._root
        for step in unquote(name[1:]).split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                return []
        return [found] if isinstance(found, dict) else []


class _Counting:
    """One count, for values with so many others in each. What was counted for a subschema is not counted again."""

    def __init__(self, looks: Looks, breadth: int) -> None:
        self._looks = looks
        self._breadth = breadth
        self._known: dict[tuple[int, int], int] = {}

    def of(self, node: object, depth: int) -> int:
        if not isinstance(node, dict):
            return 1
        key = (id(node), depth)
        if key not in self._known:
            if len(self._known) > MAX_STEPS:
                return MAX_LOOKS + 1
            self._known[key] = MAX_LOOKS + 1  # For whoever comes back here without going down.
            self._known[key] = min(self._count(node, depth), MAX_LOOKS + 1)
        return self._known[key]

    def _count(self, node: _Schema, depth: int) -> int:
        here = sum(self.of(child, depth) for child in self._here(node))
        if "unevaluatedProperties" in node or "unevaluatedItems" in node:
            here *= AGAIN
        count = 1 + here + _of_words(node)
        if depth:
            each = sum(self.of(child, depth - 1) for child in _of_each(node))
            count += self._breadth * each + sum(
                self.of(child, depth - 1) for child in _of_one(node)
            )
        return count

    def _here(self, node: _Schema) -> Iterable[object]:
        """Subschemas for the same value."""
        for key in _REFERENCES:
            if key in node:
                yield from self._looks.targets(node[key])
        yield from (node[key] for key in _HERE if key in node)
        for key in _HERE_LISTS:
            yield from _list(node.get(key))
        for key in _HERE_MAPS:
            yield from _map(node.get(key)).values()


def _of_words(node: _Schema) -> int:
    """What it takes beside its subschemas."""
    patterns = [*_map(node.get("patternProperties")), node.get("pattern")]
    count = sum(
        FANCY_LOOKS if any(sign in pattern for sign in _FANCY) else PATTERN_LOOKS
        for pattern in patterns
        if isinstance(pattern, str)
    )
    count += MULTIPLE_LOOKS if "multipleOf" in node else 0
    needed = [node.get("required"), *_map(node.get("dependentRequired")).values()]
    return count + sum(len(_list(names)) for names in needed)


def _of_each(node: _Schema) -> Iterable[object]:
    """Subschemas for every value in a value."""
    yield from (node[key] for key in _EACH if isinstance(node.get(key), dict))
    for key in _EACH_MAPS:
        yield from _map(node.get(key)).values()


def _of_one(node: _Schema) -> Iterable[object]:
    """Subschemas for one value in a value."""
    for key in _ONE_LISTS:
        yield from _list(node.get(key))
    for key in _ONE_MAPS:
        yield from _map(node.get(key)).values()


def _nodes(schema: _Schema) -> Iterable[_Schema]:
    """All subschemas, and the schema."""
    waiting: list[object] = [schema]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict):
            continue
        yield node
        waiting.extend(_of_each(node))
        waiting.extend(_of_one(node))
        waiting.extend(node[key] for key in _HERE if key in node)
        for key in _HERE_LISTS:
            waiting.extend(_list(node.get(key)))
        for key in (*_HERE_MAPS, *_KEPT_MAPS):
            waiting.extend(_map(node.get(key)).values())


def _extent(value: object) -> tuple[int, int, int]:
    """How many values there are in a value, how deep they nest, and how many are at most in one of them."""
    count, depth, breadth = 0, -1, 1
    level = [value]
    while level:
        count += len(level)
        depth += 1
        below: list[object] = []
        for each in level:
            if isinstance(each, dict | list):
                below.extend(each.values() if isinstance(each, dict) else each)
                breadth = max(breadth, len(each))
        level = below
    return count, depth, breadth


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
