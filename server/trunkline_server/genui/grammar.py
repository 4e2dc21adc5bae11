"""What holds the embedded model to the language: a grammar of short answers, in the form that llama.cpp takes (GBNF).

A model that small does not keep to a form that it is only told of. So its answers are a part of the language: the root
with a few components in it that take no further ones, each with what it needs and nothing else.

Source: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

import json
import re
from collections.abc import Iterable
from typing import Final

from trunkline_server.genui.component import Component

CHILDREN: Final = "component[]"
MAX_CHILDREN: Final = 6
MAX_ITEMS: Final = 6
MAX_STRING_CHARS: Final = 200

_STRING: Final = rf'"\"" [^"\\<\x00-\x1F]{{1,{MAX_STRING_CHARS}}} "\""'
_NUMBER: Final = '"-"? [0-9]{1,6} ("." [0-9]{1,2})?'
_INTEGER: Final = "[0-9]{1,6}"
_BOOLEAN: Final = '"true" | "false"'
_RULES: Final = {
    "string": "string",
    "markdown": "string",
    "scalar": "string",
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
}
_WORDS = re.compile(r'"[A-Za-z0-9_ -]+"(?:\s*\|\s*"[A-Za-z0-9_ -]+")*\Z')


def grammar_of(root: str, components: Iterable[Component]) -> str:
    """The grammar of one library; empty where its root can't simply hold other components."""
    known = list(components)
    frame = next((c for c in known if c.name == root), None)
    if frame is None:
        return ""
    needed = [p for p in frame.parameters if p.is_required]
    if [p.type for p in needed] != [CHILDREN] or frame.parameters[0] is not needed[0]:
        return ""
    calls = [call for c in known if c is not frame and (call := _call(c))]
    if not calls:
        return ""
    more = f'(", " child){{0,{MAX_CHILDREN - 1}}}'
    return "\n".join(
        [
            f'root ::= {json.dumps(f"root = {root}([")} child {more} "])\\n"',
            f"child ::= {' | '.join(calls)}",
            f"string ::= {_STRING}",
            f"number ::= {_NUMBER}",
            f"integer ::= {_INTEGER}",
            f"boolean ::= {_BOOLEAN}",
        ]
    )


def _call(component: Component) -> str:
    """With its required parameters, if they come first and are plain values; else nothing."""
    needed = [p for p in component.parameters if p.is_required]
    if not needed or tuple(needed) != component.parameters[: len(needed)]:
        return ""
    values = [_value(p.type) for p in needed]
    if not all(values):
        return ""
    arguments = ' ", " '.join(values)
    return f'{json.dumps(component.name + "(")} {arguments} ")"'


def _value(type_: str) -> str:
    if type_ in _RULES:
        return _RULES[type_]
    item = _RULES.get(type_.removesuffix("[]"))
    if item is not None:
        return f'"[" {item} (", " {item}){{0,{MAX_ITEMS - 1}}} "]"'
    if _WORDS.match(type_):
        words = (word.strip() for word in type_.split("|"))
        return f"({' | '.join(json.dumps(word) for word in words)})"
    return ""
