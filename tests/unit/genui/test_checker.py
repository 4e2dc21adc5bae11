"""What a library does not have is never passed on, wherever it hides, and to check costs what an answer is long."""

import time
import tracemalloc
from random import Random

import pytest

from tests.unit.genui.answers import DESK, check, cut
from trunkline_server.genui.checker import MAX_CHARS, MAX_STATEMENTS, MAX_WARNINGS
from trunkline_server.genui.parser import MAX_DEPTH
from trunkline_server.genui.statements import MAX_STATEMENT_CHARS

ROOT = "root = Page([Line()])\n"
SCRIPT = '"javascript:alert(1)"'
QUERY = f'q = Query("tickets.list", {{}}, {{u: {SCRIPT}}})'


@pytest.mark.parametrize(
    ("line", "passed", "code"),
    [
        # The smallest part is left out: an argument, an item, an entry, a branch, a component, a statement.
        ('x = Label("a", "huge")', 'x = Label("a")', "WRONG_TYPE"),
        ('x = Page([Chart(1), Line(), "text"])', "x = Page([Line()])", "UNKNOWN_COMPONENT"),
        ("x = Line(1, 2)", "x = Line()", "EXCESS_ARGUMENTS"),
        ('x = Figure("a", 1, 1.5, "yes")', 'x = Figure("a", 1)', "WRONG_TYPE"),
        ('x = Figure("a", 1, 1.5, true)', 'x = Figure("a", 1, null, true)', "WRONG_TYPE"),
        ("x = Page([$a ? Chart() : Line()])", "x = Page([$a ? null : Line()])", "UNKNOWN_COMPONENT"),
        ('x = Label("a" + @Evil("b"))', 'x = Label("a" + null)', "UNKNOWN_FUNCTION"),
        ('x = Field("a", "b", {onclick: "x", min: 1})', 'x = Field("a", "b", {min: 1})', "UNSAFE_VALUE"),
        ("x = Label()", "", "MISSING_ARGUMENT"),
        ("x = Label(null)", "", "MISSING_ARGUMENT"),
        ("x = Label(@Evil())", "", "UNKNOWN_FUNCTION"),
        ('x = Figure("a", "1")', "", "WRONG_TYPE"),
        ("x = Label([1])", "", "WRONG_TYPE"),
        ("x = Page(Line())", "", "WRONG_TYPE"),
        ('x = Grid([Column("a"), Line()])', 'x = Grid([Column("a")])', "WRONG_TYPE"),
        ("x = Chart(1)", "", "UNKNOWN_COMPONENT"),
        ("x = line()", "x = line", "UNREADABLE"),
        ('x = Knob("a", "b")', 'x = Knob("a")', "WRONG_TYPE"),
        ('x = Knob("a", {type: "open_url", url: "https://a"})', 'x = Knob("a")', "WRONG_TYPE"),
        ('x = Knob("a", Action([@Reset(y), @Do(), @Reset($y)]))', 'x = Knob("a", Action([@Reset($y)]))', "WRONG_TYPE"),
        ('x = Label(@ToAssistant("b"))', "", "WRONG_TYPE"),
        ('x = Query("other", {})', "", "UNKNOWN_TOOL"),
        ('x = Mutation("tickets." + $a, {})', "", "UNKNOWN_TOOL"),
        ('x = [Query("tickets.list", {})]', "x = []", "WRONG_TYPE"),
        ('x = @Each([1], "a b", Line())', "", "WRONG_TYPE"),
        ("x = Label(1e999)", "", "UNREADABLE"),
        ("x = Label(1e)", "", "UNREADABLE"),
        ("x = Label(" + "9" * 41 + ")", "", "UNREADABLE"),
        ("x = {a}", "", "UNREADABLE"),
        ("x = $a ? 1", "", "UNREADABLE"),
        ("true = 1", "", "UNREADABLE"),
        ("x = Label($y = 1)", "", "UNREADABLE"),
        ("x = " + "y" * 65, "", "UNREADABLE"),
        ("x = " + "[" * (MAX_DEPTH + 1), "", "TOO_DEEP"),
        ("x = " + "!" * (MAX_DEPTH + 1) + "y", "", "TOO_DEEP"),
        ("x = " + "1 + " * 60 + "1", "", "TOO_DEEP"),
        ("x = y" + ".a" * 60, "", "TOO_DEEP"),
        ("x = " + "[" * 50_000, "", "TOO_DEEP"),
        ("x = " + "1 + " * 15_000 + "1", "", "TOO_DEEP"),
    ],
)  # fmt: skip
def test_a_mistake_costs_the_smallest_part(line, passed, code):
    found, warnings = check(ROOT + line + "\n")

    assert found == ROOT + (passed and f"{passed}\n")
    assert (code, line.partition(" ")[0]) in warnings


@pytest.mark.parametrize(
    ("line", "passed"),
    [
        (f"x = Go('a', {SCRIPT})", ""),
        ('x = Go("a", "JAVA\\u0053CRIPT:alert(1)")', ""),
        ('x = Go("a", "java\nscript:alert(1)")', ""),
        ('x = Go("a", "\\tjavascript:alert(1)")', ""),
        ('x = Go("a", "data:text/html,<script>alert(1)</script>")', ""),
        ('x = Go("a", "java" + "script:alert(1)")', ""),
        ('x = Go("a", $u)', ""),
        (f'x = Go("a", @First([{SCRIPT}]))', ""),
        (f'x = Go("a", {{u: {SCRIPT}}}.u)', ""),
        (f'x = Go("a", ["https://a", {SCRIPT}][1])', ""),
        (f'x = Go("a", "https://a", {SCRIPT})', 'x = Go("a", "https://a")'),
        ('x = Go("a", "https://a", "data:image/svg+xml;base64,AA==")', 'x = Go("a", "https://a")'),
        (f'x = Panel("p", [Go("a", $b ? {SCRIPT} : {SCRIPT})])', 'x = Panel("p", [Go("a", $b ? null : null)])'),
        (f'x = [@Each([{SCRIPT}], "u", Go("a", u))]', "x = []"),
        (f'x = Knob("a", @OpenUrl({SCRIPT}))', 'x = Knob("a")'),
        ('x = Knob("a", @OpenUrl("java" + "script:1"))', 'x = Knob("a")'),
        (f'x = Knob("a", Action([@OpenUrl({SCRIPT})]))', 'x = Knob("a", Action([]))'),
        (f"x = [Action([@OpenUrl({SCRIPT})])]", "x = [Action([])]"),
        ('x = Note("<img src=x onerror=alert(1)>")', ""),
        ('x = Note("<scr" + "ipt>")', ""),
        ('x = Note("[a](javascript:alert(1))")', ""),
        (f"x = Embed({SCRIPT})", ""),
        ('x = Embed("<script>")', ""),
        ('x = Embed("java" + "script:1")', ""),
        (f"x = Embed([{{a: [{SCRIPT}]}}])", "x = Embed([{a: []}])"),
        (f'x = Field("a", "b", {{a: {{b: [{SCRIPT}]}}}})', 'x = Field("a", "b", {a: {b: []}})'),
        ('x = Field("a", "b", {onClick: "alert(1)", __proto__: {a: 1}, innerHTML: 1})', 'x = Field("a", "b", {})'),
    ],
)  # fmt: skip
def test_a_script_never_reaches_what_would_run_it(line, passed):
    for size in (1, 1000):
        found, warnings = check(*cut(ROOT + line + "\n", size))

        assert found == ROOT + (passed and f"{passed}\n")
        assert {code for code, _ in warnings} <= {"UNSAFE_VALUE", "WRONG_TYPE"}
        assert len(warnings) > 0


@pytest.mark.parametrize(
    ("lines", "passed"),
    [
        # Whatever comes first, the use or what is used.
        ([f"u = {SCRIPT}", 'x = Go("a", u)'], [f"u = {SCRIPT}"]),
        (['x = Go("a", u)', f"u = {SCRIPT}"], ['x = Go("a", u)']),
        (['x = Go("a", u)', 'u = "https://a"', f"u = {SCRIPT}"], ['x = Go("a", u)', 'u = "https://a"']),
        (['u = "https://a"', 'x = Go("a", u)', f"u = {SCRIPT}"], ['u = "https://a"', 'x = Go("a", u)']),
        # Over names that stand for names.
        ([f"u = {SCRIPT}", "v = u", "w = v", 'x = Go("a", w)'], [f"u = {SCRIPT}", "v = u", "w = v"]),
        (['x = Go("a", w)', "w = v", "v = u", f"u = {SCRIPT}"], ['x = Go("a", w)', "w = v", "v = u"]),
        (["v = u", 'x = Go("a", v)', f"u = {SCRIPT}"], ["v = u", 'x = Go("a", v)']),
        (['x = Go("a", v)', 'v = $a ? u : "https://a"', f"u = {SCRIPT}"], ['x = Go("a", v)', 'v = $a ? u : "https://a"']),
        (['x = Go("a", v)', f'v = $a ? {SCRIPT} : "https://a"'], ['x = Go("a", v)', 'v = $a ? null : "https://a"']),
        # In a circle, which nobody gets out of, and round which something could come.
        (["a = b", f"b = $c ? a : {SCRIPT}", 'x = Go("a", a)', 'y = Go("a", b)'], ["a = b", f"b = $c ? a : {SCRIPT}"]),
        (["a = b", "b = a", 'x = Go("a", b)'], ["a = b", "b = a"]),
        # In lists, of each item.
        (["xs = [Line(), 1]", "x = Page(xs)"], ["xs = [Line(), 1]"]),
        (["x = Page(xs)", "xs = [Line(), 1, y]", "y = 2"], ["x = Page(xs)", "xs = [Line(), y]"]),
        (["x = Embed(d)", f"d = [{{a: {SCRIPT}, b: 1}}]"], ["x = Embed(d)", "d = [{b: 1}]"]),
        ([QUERY, "x = Embed(q)"], [QUERY]),
        (["x = Embed(q)", QUERY], ["x = Embed(q)", 'q = Query("tickets.list", {}, {})']),
        (["x = Embed({a: d})", f"d = {SCRIPT}"], ["x = Embed({a: d})"]),
        (['x = Knob("k", a)', "a = Line()"], ['x = Knob("k", a)']),
        (['x = Knob("k", Action([s]))', 's = "t"'], ['x = Knob("k", Action([s]))']),
        # `root` is a component, whatever else it may be called.
        (["root = 1", "root = [Line()]", "root = Query(\"tickets.list\", {})", "a = 1"], ["a = 1"]),
    ],
)  # fmt: skip
def test_what_a_name_is_used_for_holds_for_what_it_stands_for(lines, passed):
    found, warnings = check("\n".join(lines))

    assert found == "".join(f"{line}\n" for line in passed)
    assert {code for code, _ in warnings} & {"UNSAFE_VALUE", "WRONG_TYPE"}


def test_what_is_missing_is_said_at_the_end():
    checker = DESK.checker()
    checker.feed(
        "root = Page([a, b, $c, @Each([1], 'd', Label(d)), Label(@Count(e))])\nb = Line()\n"
    )
    checker.end()

    assert [(w.code, w.field, w.message) for w in checker.warnings] == [
        ("GENUI_WRONG_TYPE", "root", "$c, known only when it is shown, is not taken there"),
        ("GENUI_WRONG_TYPE", "root", "what is known only when it is shown is not taken there"),
        ("GENUI_UNRESOLVED", "", "these names are used and never defined: a, e"),
    ]
    assert check("a = Line()\n")[1] == [("NO_ROOT", "root")]
    assert check("a = Page([b])\nb = Line()\n")[1] == []
    assert check("")[1] == [("NO_ROOT", "root")]
    assert check("Hello!")[1] == [("TEXT_DROPPED", ""), ("NO_ROOT", "root")]


def test_nothing_is_unbounded():
    many, warnings = check("".join(f"a{n} = 1\n" for n in range(MAX_STATEMENTS + 50)))
    assert many.count("\n") == MAX_STATEMENTS
    assert warnings[0] == ("TOO_LONG", f"a{MAX_STATEMENTS}")

    large, _ = check(f'a = "{"x" * 60_000}"\n' * 20)
    assert MAX_CHARS - 61_000 < len(large) <= MAX_CHARS

    assert len(check("x = Chart()\n" * 500)[1]) == MAX_WARNINGS
    assert len(check("prose\n" * 500)[1]) == 2


@pytest.mark.parametrize(
    "head", ['x = Label("', "x = [", "x = 1", "prose ", "", "// ", "```", 'x = Label("a")\n?']
)
@pytest.mark.parametrize("filler", ["a", " ", "\\", "1, ", "'"])
def test_a_line_of_ten_megabytes_is_neither_kept_nor_passed_on(head, filler):
    piece = filler * (65_536 // len(filler))
    checker = DESK.checker()
    checker.feed(ROOT)
    passed = checker.feed(head)
    tracemalloc.start()

    for _ in range(10 * 1024 * 1024 // len(piece)):
        passed += checker.feed(piece)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    passed += checker.feed("\ny = Line()\n") + checker.end()

    assert most < 8 * MAX_STATEMENT_CHARS
    assert passed.removeprefix(ROOT) in ("y = Line()\n", 'x = Label("a")\ny = Line()\n')


def test_a_statement_is_passed_on_whether_or_not_a_line_after_it_is_too_long():
    whole = "root = Page([a])\n" + "z" * (MAX_STATEMENT_CHARS + 1) + "\na = Line()\n"

    for size in (len(whole), 1000, 60_000):
        assert check(*cut(whole, size))[0] == "root = Page([a])\na = Line()\n"


ATOMS = [
    *["root = ", "a = ", "b = ", "$s = ", "xs = ", "\n", "\n", "\n", "\r\n", ",", " "],
    *["Page(", "Panel(", "Label(", "Go(", "Note(", "Embed(", "Knob(", "Field(", "Chart(", "Grid(", "Column("],
    *["[", "]", "(", ")", "{", "}", "k: ", "onclick: ", "a", "b", "$s", "xs", "null", "true", "1.5", "-1"],
    *['"t"', SCRIPT, '"https://a.b"', '"<script>"', "'x'", '"', "'", "\\", "```", "#", "//", "é", "\ud7ff"],
    *["?", ":", "+", "-", "&&", "||", "!", "=", "==", ".", "@Each(xs, \"a\", ", "@First(", "@OpenUrl("],
    *["Action([", "@Set($s, ", "@Run(a)", 'Query("tickets.list", {})', "text ", "@Evil("],
]  # fmt: skip


def written(random: Random) -> str:
    """Something like an answer: statements, parts of statements, and neither."""

    def value(depth: int) -> str:
        kinds = ["atom", "atom", "list", "call", "condition", "object", "broken"]
        match random.choice(kinds) if depth < 4 else "atom":
            case "list":
                return f"[{', '.join(value(depth + 1) for _ in range(random.randrange(4)))}]"
            case "call":
                name = random.choice(
                    ["Page", "Panel", "Label", "Go", "Note", "Embed", "Knob", "Field", "Chart"]
                )
                return f"{name}({', '.join(value(depth + 1) for _ in range(random.randrange(4)))})"
            case "condition":
                return f"$s ? {value(depth + 1)} : {value(depth + 1)}"
            case "object":
                return f"{{k: {value(depth + 1)}, onclick: {value(depth + 1)}}}"
            case "broken":
                return "".join(random.choices(ATOMS, k=random.randrange(4)))
        return random.choice(["a", "b", "c", "$s", '"t"', SCRIPT, '"https://a.b"', "null", "1"])

    names = ["root", "a", "b", "c", "xs", "$s"]
    return "".join(f"{random.choice(names)} = {value(0)}\n" for _ in range(random.randrange(1, 7)))


@pytest.mark.parametrize(
    "runs", [pytest.param(1_500, id="short"), pytest.param(100_000, id="long", marks=pytest.mark.slow)]
)  # fmt: skip
def test_what_is_passed_on_is_valid_by_itself_and_does_not_depend_on_the_pieces(runs):
    random = Random(11)
    for run in range(runs):
        text = (
            written(random) if run % 2 else "".join(random.choices(ATOMS, k=random.randrange(50)))
        )

        passed, warnings = check(text)

        assert check(*cut(text, random.randrange(1, 9))) == (passed, warnings)
        again, remarks = check(passed)
        assert again == passed
        assert {code for code, _ in remarks} <= {"UNRESOLVED", "NO_ROOT"}, text
        passed.encode()


@pytest.mark.once
@pytest.mark.parametrize(
    "unit",
    [
        *['"', "'", "[", "(", "{", "]", "\\", "?", "a = 1\n", "a = [a, b]\n", "x = ", "```\n", "prose\n", "a.b", "-"],
        *['x = Go("a", u)\n', "a = b\nb = a\nx = Page(a)\n", "x = Page([a, b, c])\n", "//\n", "{a: 1,", '"\n'],
        *["é ", "="],
    ],
)  # fmt: skip
def test_twice_the_answer_takes_about_twice_the_time(unit):
    def seconds(times: int) -> float:
        pieces = cut("root = Page([\n" + unit * times, 50)
        best = 1e9
        for _ in range(2):
            start = time.perf_counter()
            check(*pieces)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(3_000) < 40 * seconds(300) + 0.02


def test_many_names_for_names_cost_no_more_than_they_are_long():
    names = "".join(f"a{n} = a{n + 1}\n" for n in range(1_500))
    uses = "".join(f'x{n} = Go("a", a{n})\n' for n in range(400))
    start = time.perf_counter()

    passed, _ = check(names + "a1500 = 1\n" + uses)

    assert passed.count("Go(") == 0
    assert time.perf_counter() - start < 2
