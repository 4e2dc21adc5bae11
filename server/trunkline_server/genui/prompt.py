"""What a model is told of the language and of a library's components, in few tokens."""

from collections.abc import Sequence
from typing import Final

from trunkline_server.genui.component import Component

_LANGUAGE: Final = """\
Answer with a user interface in OpenUI Lang, and with nothing else: no prose, no code fence, no comments.

One statement per line: name = Component(arguments). The first line is {root}. Then define every name that you used, \
each once, from the outside to the inside.
Arguments go by position. Leave optional ones (marked ?) out at the end; null skips one in the middle.
Values: "text" with \\" and \\n escaped, 12.5, true, false, null, [a, b], {{key: value}}, Component(...), or the \
name of another statement. A parameter with [] takes a list in brackets, even of one item.
state: a name such as $city, declared by a line $city = "". action: @ToAssistant("what the user then says") or \
@OpenUrl("https://...").
url: an https address that you were given. Use only these components:
"""
_TOOLS: Final = """\
Data comes from tools: rows = Query("tool", {{argument: value}}, {{default: []}}) as a line of its own; then use \
rows.field. Tools: {tools}.
"""


def prompt_of(
    root: str,
    components: Sequence[Component],
    tools: Sequence[str],
    instructions: str,
    example: str,
) -> str:
    """The prompt of one library."""
    first = f"root = {root}(...)" if root else "root = Component(...)"
    lines = [_LANGUAGE.format(root=first)]
    for component in components:
        note = f" - {component.description}" if component.description else ""
        lines.append(f"{component.signature}{note}\n")
    if tools:
        lines.append("\n" + _TOOLS.format(tools=", ".join(tools)))
    if instructions:
        lines.append(f"\n{instructions.strip()}\n")
    if example:
        lines.append(f"\nExample:\n{example.strip()}\n")
    return "".join(lines)
