"""Answers of models in OpenUI Lang, and what a checker makes of them."""

from trunkline_server.genui.library import Library, library_from

# Components in the shapes that the language's own description uses: a row of figures, tickets, forms, tools.
DESK = library_from(
    "desk",
    b"""
root = "Page"
tools = ["tickets.list", "tickets.close"]

[[components]]
name = "Page"
parameters = [
    { name = "children", type = "component[]", required = true },
    { name = "direction", type = '"row" | "column"' },
]

[[components]]
name = "Panel"
aliases = ["Box"]
parameters = [
    { name = "title", type = "string", required = true },
    { name = "children", type = "component[]" },
]

[[components]]
name = "Label"
parameters = [
    { name = "text", type = "scalar", required = true },
    { name = "size", type = '"small" | "large"' },
]

[[components]]
name = "Figure"
parameters = [
    { name = "label", type = "string", required = true },
    { name = "value", type = "number", required = true },
    { name = "digits", type = "integer" },
    { name = "visible", type = "boolean" },
]

[[components]]
name = "Grid"
parameters = [{ name = "columns", type = "Column[]", required = true }]

[[components]]
name = "Column"
parameters = [
    { name = "label", type = "string", required = true },
    { name = "cells", type = "(scalar | object | Label)[]" },
]

[[components]]
name = "Knob"
parameters = [
    { name = "label", type = "string", required = true },
    { name = "action", type = "action" },
]

[[components]]
name = "Field"
parameters = [
    { name = "name", type = "string", required = true },
    { name = "value", type = "state | string" },
    { name = "rules", type = "object" },
]

[[components]]
name = "Note"
parameters = [{ name = "text", type = "markdown", required = true }]

[[components]]
name = "Go"
parameters = [
    { name = "text", type = "string", required = true },
    { name = "to", type = "url", required = true },
    { name = "icon", type = "image" },
]

[[components]]
name = "Embed"
parameters = [{ name = "data", type = "any", required = true }]

[[components]]
name = "Line"
""",
    ".toml",
    "desk.toml",
)


def check(*pieces: str, library: Library = DESK) -> tuple[str, list[tuple[str, str]]]:
    """What is passed on, and the warnings: code without its prefix, and whose it is."""
    checker = library.checker()
    passed = "".join(checker.feed(piece) for piece in pieces) + checker.end()
    return passed, [(w.code.removeprefix("GENUI_"), w.field) for w in checker.warnings]


def cut(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]
