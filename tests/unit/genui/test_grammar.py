"""The grammar that holds the embedded model to the language."""

from trunkline_server.genui.grammar import grammar_of
from trunkline_server.genui.library import bundled_library, library_from

SMALL = b"""
root = "Page"

[[components]]
name = "Page"
parameters = [
    { name = "children", type = "component[]", required = true },
    { name = "title", type = "string" },
]

[[components]]
name = "Note"
parameters = [
    { name = "tone", type = '"good" | "bad"', required = true },
    { name = "text", type = "markdown", required = true },
    { name = "size", type = "number" },
]

[[components]]
name = "Bars"
parameters = [{ name = "values", type = "number[]", required = true }]

[[components]]
name = "Link"
parameters = [{ name = "to", type = "url", required = true }]
"""


def test_a_grammar_has_the_root_and_what_needs_only_plain_values():
    library = library_from("small", SMALL, ".toml", "small.toml")

    assert library.grammar.splitlines()[:2] == [
        'root ::= "root = Page([" child (", " child){0,5} "])\\n"',
        r'child ::= "Note(" ("\"good\"" | "\"bad\"") ", " string ")" | "Bars(" "[" number (", " number){0,5} "]" ")"',
    ]


def test_without_such_a_root_there_is_none():
    components = library_from("small", SMALL, ".toml", "small.toml").components.values()

    assert grammar_of("Note", components) == ""
    assert grammar_of("", components) == ""
    assert grammar_of("Nowhere", components) == ""
    assert grammar_of("Page", [c for c in components if c.name in ("Page", "Link")]) == ""


def test_what_it_allows_passes_the_check():
    library = bundled_library()
    calls = [
        'Heading("Colours")', 'Badge("new")', 'PieChart(["a", "b"], [1, 2.5])', 'Button("Go")',
        'Choice("c", "Which?", ["x"])', 'Input("n", "Name")', 'Callout("Mind the gap")',
    ]  # fmt: skip
    checker = library.checker()
    line = f"root = Stack([{', '.join(calls)}])\n"

    assert checker.feed(line) + checker.end() == line
    assert list(checker.warnings) == []
    for call in calls:
        name, _, _ = call.partition("(")
        assert f'"{name}("' in library.grammar
