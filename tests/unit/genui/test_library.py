"""A folder of component libraries: what a file may say, what it is told to a model, and how it is found."""

from pathlib import Path

import pytest

from tests.unit.genui.answers import DESK, check
from trunkline_server.core.errors import InvalidRequest
from trunkline_server.genui.library import (
    LibraryProblem,
    bundled_library,
    library_from,
    read_libraries,
    read_library,
)

SMALL = '[[components]]\nname = "Line"\n'


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_library_that_ships_has_an_example_that_passes_whole():
    library = bundled_library()

    passed, warnings = check(library.example, library=library)

    assert (passed, warnings) == (library.example.strip() + "\n", [])
    assert (library.id, library.root, list(library.tools)) == ("basic", "Stack", [])
    assert len(library.prompt) < 3_000


def test_a_prompt_names_all_components_with_what_they_take_and_no_old_names():
    lines = DESK.prompt.splitlines()

    assert 'Page(children: component[], direction?: "row" | "column")' in lines
    assert "Go(text: string, to: url, icon?: image)" in lines
    assert "Line()" in lines
    assert "Box" not in DESK.prompt
    assert "The first line is root = Page(...)." in DESK.prompt
    assert "Tools: tickets.list, tickets.close." in DESK.prompt
    assert "Query" not in bundled_library().prompt


def test_a_file_may_be_json_too(tmp_path):
    text = (
        '{"components": [{"name": "Line", "description": "a rule"}], "instructions": "Be brief."}'
    )

    library = read_library(file(tmp_path, "plain.json", text))

    assert library.id == "plain"
    assert library.prompt.endswith("Line() - a rule\n\nBe brief.\n")
    assert check("root = Line()", library=library) == ("root = Line()\n", [])


def test_libraries_are_found_by_id_and_one_is_meant_where_none_is_named(tmp_path):
    file(tmp_path, "desk.toml", SMALL)
    file(tmp_path, "notes.txt", "no library")

    usual, changed = read_libraries(str(tmp_path)), read_libraries(str(tmp_path), "desk")

    assert usual.ids == ["basic", "desk"]
    assert (usual.find("").id, changed.find("").id) == ("basic", "desk")
    assert usual.find("desk").components.keys() == {"Line"}
    with pytest.raises(InvalidRequest) as refused:
        usual.find("dessk")
    (violation,) = refused.value.violations
    assert violation.field == "spec.component_library"
    assert violation.description == "no component library has this id: did you mean 'desk'?"


def test_one_of_the_same_id_replaces_the_one_that_ships(tmp_path):
    file(tmp_path, "basic.toml", SMALL)

    assert read_libraries(str(tmp_path)).find("").components.keys() == {"Line"}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("x.toml", "components = []", "length >= 1"),
        ("x.toml", "a = ", "x.toml: "),
        ("x.json", "[" * 100_000, "x.json: "),
        ("x.toml", SMALL + "size = 1\n", "unknown field `size`"),
        ("X y.toml", SMALL, "the file's name is no id"),
        ("x.toml", SMALL + SMALL, "two components are called Line"),
        ("x.toml", SMALL + 'aliases = ["Line"]\n', "two components are called Line"),
        ("x.toml", '[[components]]\nname = "line"\n', "'line' can't be a component's name"),
        ("x.toml", '[[components]]\nname = "Query"\n', "'Query' can't be a component's name"),
        ("x.toml", 'root = "Page"\n' + SMALL, "root: there is no component 'Page'"),
        (
            "x.toml",
            SMALL + 'parameters = [{ name = "a", type = "text" }]\n',
            "Line.a: 'text' is neither a type nor a component",
        ),
        (
            "x.toml",
            SMALL + 'parameters = [{ name = "a", type = "url | string" }]\n',
            "Line.a: url, image, markdown and any stand alone",
        ),
        (
            "x.toml",
            SMALL + 'parameters = [{ name = "a", type = "string[][][][][]" }]\n',
            "Line.a: more than 4 lists within each other",
        ),
        (
            "x.toml",
            SMALL + 'parameters = [{ name = "a", type = "string |" }]\n',
            "Line.a: '' is neither a name nor a choice in quotes",
        ),
        (
            "x.toml",
            SMALL
            + 'parameters = [{ name = "a", type = "string" },'
            + ' { name = "b", type = "string", required = true }]\n',
            "Line.b: it is required, and comes after one that is not",
        ),
        (
            "x.toml",
            SMALL + 'parameters = [{ name = "a", type = "any" }, { name = "a", type = "any" }]\n',
            "Line: two parameters have one name",
        ),
        (
            "x.toml",
            SMALL + 'parameters = [{ name = "a b", type = "any" }]\n',
            "Line: 'a b' can't be a parameter's name",
        ),
        ("x.toml", 'example = "root = Lime()"\n' + SMALL, "example: there is no component Lime"),
        ("x.toml", "#" * (1024 * 1024 + 1), "larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_library_is_refused_with_what_is_wrong(tmp_path, name, text, problem):
    path = file(tmp_path, name, text)

    with pytest.raises(LibraryProblem) as refused:
        read_library(path)

    assert str(refused.value).startswith(f"{path}: ")
    assert problem in str(refused.value)


def test_a_folder_with_two_of_one_id_is_refused_and_so_is_a_default_that_is_not_there(tmp_path):
    file(tmp_path, "desk.json", '{"components": [{"name": "Line"}]}')
    file(tmp_path, "desk.toml", SMALL)

    with pytest.raises(LibraryProblem, match=r"desk\.json has the same id"):
        read_libraries(str(tmp_path))
    with pytest.raises(LibraryProblem, match="there is no library 'desk': there are basic"):
        read_libraries("", "desk")
    with pytest.raises(LibraryProblem, match="No such file"):
        read_library(tmp_path / "none.toml")


def test_the_library_of_the_documentation_is_one_and_so_is_its_answer():
    page = (Path(__file__).parents[3] / "docs/genui.md").read_text()
    (toml,) = (b for b in page.split("```") if b.startswith("toml\n# libraries/shop.toml\n"))
    (answer,) = (b for b in page.split("```") if b.startswith("text\n"))
    answer = answer.removeprefix("text\n")

    shop = library_from("shop", toml.removeprefix("toml\n").encode(), ".toml", "shop.toml")

    assert check(shop.example, library=shop) == (shop.example, [])
    assert check(answer, library=bundled_library()) == (answer, [])


def test_a_component_goes_by_its_old_names_too():
    library = library_from("x", (SMALL + 'aliases = ["Rule"]\n').encode(), ".toml", "x.toml")

    assert check("root = Rule()", library=library) == ("root = Rule()\n", [])
