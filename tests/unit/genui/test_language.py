"""Each feature of the language is understood, and written down in one way that says the same.

The features are those of https://github.com/thesysdev/openui/blob/main/spec/language.md (1.0), read 2026-11-22; the
examples are ours.
"""

import pytest

from tests.unit.genui.answers import DESK, check, cut

PROGRAMS = {
    "names used before they are defined": (
        (
            'root = Page([head, figures])\nhead = Label("Desk", "large")\nfigures = Page([open, done], "row")\n'
            'open = Figure("Open", 12)\ndone = Figure("Done", -8.50, 2, true)\n'
        ),
        None,
    ),
    "a page without a root, by the root component": ('page = Page([Label("a")])\n', None),
    "data of their own, and a null that skips": (
        (
            'root = Page([a, b], null)\na = Box("A", items)\nitems = [Label(1), b, null]\n'
            'b = Field("x", null, {required: true, maxLength: 80})\n'
        ),
        (
            'root = Page([a, b])\na = Box("A", items)\nitems = [Label(1), b, null]\n'
            'b = Field("x", null, {required: true, maxLength: 80})\n'
        ),
    ),
    "comments, commas, semicolons, and a bracket that closes nothing": (
        '// first\nroot = Page([a b, ,] "row",); # last\n# more\na = Label("// no # comment")]\nb = Line()\n',
        'root = Page([a, b], "row")\na = Label("// no # comment")\nb = Line()\n',
    ),
    "strings of both kinds, escapes, and lines within": (
        (
            "root = Page([a, b, c])\n"
            'a = Label("q\\"b\\\\t\\tu\\u0041\\u00e9\\ud83d\\ude00\\x/")\n'
            'b = Label(\'it\\\'s "so"\\n\\q\')\nc = Label("one\n# two\n```\nx = y")\n'
        ),
        (
            "root = Page([a, b, c])\n"
            'a = Label("q\\"b\\\\t\\tuAé😀x/")\n'
            'b = Label("it\'s \\"so\\"\\nq")\nc = Label("one\\n# two\\n```\\nx = y")\n'
        ),
    ),
    "half a character is none": (
        'root = Page([Label("\\ud83d!")])\n',
        'root = Page([Label("\ufffd!")])\n',
    ),
    "numbers": (
        'root = Page([Grid([Column("n", [1 -2, 3, 4 - 1, -5, 1.5e3, - 6, 0.10])])])\n',
        'root = Page([Grid([Column("n", [1 - 2, 3, 4 - 1, -5, 1.5e3, -6, 0.10])])])\n',
    ),
    "operators by their strength": (
        (
            'root = Page([Grid([Column("n", [1 + 2 * 3 - 4 / 2, !!"x" && !a === 1, 1 || 2 && 0, '
            "(1 + 2) * 3, a != 1 | b])])])\n"
            "a = 1\nb = 2\n"
        ),
        (
            'root = Page([Grid([Column("n", [(1 + (2 * 3)) - (4 / 2), (!(!"x")) && ((!a) == 1), 1 || (2 && 0), '
            "(1 + 2) * 3, (a != 1) || b])])])\na = 1\nb = 2\n"
        ),
    ),
    "conditions over several lines": (
        '$n = 0\nroot = $n > 0\n\n  ? full\n  // else\n  : empty\nfull = Panel("F")\nempty = Panel($n ? "A" :\n"B")\n',
        '$n = 0\nroot = ($n > 0) ? full : empty\nfull = Panel("F")\nempty = Panel($n ? "A" : "B")\n',
    ),
    "conditions in conditions": (
        'root = Page([Label(a ? b ? "1" : "2" : c ? "3" : "4")])\na = 1\nb = 1\nc = 1\n',
        'root = Page([Label(a ? (b ? "1" : "2") : (c ? "3" : "4"))])\na = 1\nb = 1\nc = 1\n',
    ),
    "a component that may be shown": (
        "$on = false\nroot = Page([$on ? a : null, $on && a, $on ? b : Line()])\na = Line()\nb = Line()\n",
        "$on = false\nroot = Page([$on ? a : null, $on && a, $on ? b : Line()])\na = Line()\nb = Line()\n",
    ),
    "fields, and what is at a place": (
        (
            'root = Page([Grid([Column("x", [m.0.1, m[1][0], o.k.v, o["k"], (1).5])])])\n'
            "m = [[1, 2], [3, 4]]\no = {k: {v: 1}}\n"
        ),
        (
            'root = Page([Grid([Column("x", [m.0.1, m[1][0], o.k.v, o["k"], (1).5])])])\n'
            "m = [[1, 2], [3, 4]]\no = {k: {v: 1}}\n"
        ),
    ),
    "keys of every kind": (
        'root = Page([Field("f", "v", {a: 1, "b c": 2, 3: 4, $d: 5, Line: 6, true: 7})])\n',
        'root = Page([Field("f", "v", {a: 1, "b c": 2, "3": 4, d: 5, Line: 6, "true": 7})])\n',
    ),
    "functions, and lists made of lists": (
        (
            'root = Page(@Each(@Sort(groups, "t"), "g", Panel(g.t, @Each(g.xs, "g", Label(g)))))\n'
            'groups = [{t: "A", xs: [1]}]\nn = @Count(@Filter(groups, "t", "==", "A"))\n'
        ),
        None,
    ),
    "state that is read and written": (
        '$q = ""\nroot = Page([Field("q", $q), Label("For " + $q), Knob("x", @Reset($q))])\n',
        None,
    ),
    "actions": (
        (
            '$s = 1\nroot = Page([Knob("a", @ToAssistant("A", {id: 4})), Knob("b", all), '
            'Knob("c", @Action([@Run(close)]))])\n'
            'all = Action([@Set($s, $s + 1), @Run(close), @OpenUrl("https://a.example/x?y=1#z"), step])\n'
            'step = @ToAssistant("done")\nclose = Mutation("tickets.close", {id: $s})\n'
        ),
        (
            '$s = 1\nroot = Page([Knob("a", @ToAssistant("A", {id: 4})), Knob("b", all), '
            'Knob("c", Action([@Run(close)]))])\n'
            'all = Action([@Set($s, $s + 1), @Run(close), @OpenUrl("https://a.example/x?y=1#z"), step])\n'
            'step = @ToAssistant("done")\nclose = Mutation("tickets.close", {id: $s})\n'
        ),
    ),
    "data of tools": (
        (
            '$days = "7"\nroot = Page([Figure("Open", @Count(t.rows)), Grid([Column("Title", t.rows.title)])])\n'
            't = Query("tickets.list", {days: $days}, {rows: []}, 30)\n'
        ),
        None,
    ),
    "data of tools as a whole, wherever they are": (
        'root = Page([Label(q), Embed(q), r])\nq = Query("tickets.list", {}, "none")\nr = Label(q)\n',
        None,
    ),
    "a name that is defined twice": ("root = Page([a])\na = Label(1)\na = Label(2)\n", None),
    "no end of the last line, and Windows": (
        'root = Page([a])\r\n\r\na = Label("x")',
        'root = Page([a])\na = Label("x")\n',
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_understood_and_written_in_one_way(name):
    text, expected = PROGRAMS[name]

    passed, warnings = check(text)

    assert (passed, warnings) == (text if expected is None else expected, [])
    assert check(passed) == (passed, [])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 1000])
def test_the_same_is_passed_on_however_the_answer_is_cut(size):
    for text, _ in PROGRAMS.values():
        assert check(*cut(text, size)) == check(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Here's it:\n```openui\nroot = Page([a])\na = Line()\n```\nDone = yes\n",
            "root = Page([a])\na = Line()\n",
        ),
        # A fence inside a string ends nothing, one outside ends the statement.
        ('```\nroot = Page([Label("```")\n```\nmore', 'root = Page([Label("```")])\n'),
        ("```\nroot = Page([a```", "root = Page([a])\n"),
        (
            'He said "so:\n```\nroot = Page([a])\n```\nand\n```\na = Line()\n```',
            "root = Page([a])\na = Line()\n",
        ),
        (
            "I made a page.\n\nroot = Page([a])\n- a list\na = Line()\nBye!",
            "root = Page([a])\na = Line()\n",
        ),
    ],
)
def test_fences_and_prose_are_left_out_with_one_warning(text, expected):
    for size in (1, 4, 1000):
        passed, warnings = check(*cut(text, size))
        assert passed == expected
        assert [code for code, _ in warnings].count("TEXT_DROPPED") == 1


def test_an_answer_that_was_cut_off_is_closed():
    passed, warnings = check('root = Page([a, b])\na = Label("x")\nb = Panel("Hal')

    assert passed == 'root = Page([a, b])\na = Label("x")\nb = Panel("Hal")\n'
    assert warnings == [("UNREADABLE", "b")]


def test_a_forgotten_bracket_costs_no_more_than_its_statement():
    passed, warnings = check("root = Page([a, b], {\na = Line()\nb = Line(\n")

    assert passed == "root = Page([a, b])\na = Line()\nb = Line()\n"
    assert [w for w in warnings if w[0] != "UNREADABLE"] == [("WRONG_TYPE", "root")]


def test_a_statement_is_passed_on_once_nothing_can_continue_it():
    checker = DESK.checker()

    assert checker.feed("root = Page([a])") == ""
    assert checker.feed("\n") == ""  # A question mark could follow.
    assert checker.feed("a") == "root = Page([a])\n"
    assert checker.feed(" = [\nb\n]\n\n  ? ") == ""
    assert checker.feed("Line() : b\n") == ""
    assert checker.feed("x = 1\ny") == "a = [b] ? Line() : b\nx = 1\n"
