"""`trunkline genui`, as it is typed."""

import pytest

from trunkline_server.cli import main

ANSWER = 'Here:\n```\nroot = Stack([a, Chart(1)])\na = Text("x")\n```\n'


def test_an_answer_is_checked_and_printed_as_a_caller_would_get_it(tmp_path, capsys):
    path = tmp_path / "answer.txt"
    path.write_text(ANSWER)

    code = main(["genui", "check", str(path)])

    out, err = capsys.readouterr()
    assert (code, out) == (1, 'root = Stack([a])\na = Text("x")\n')
    assert err.splitlines() == [
        "GENUI_TEXT_DROPPED: text around the user interface was left out",
        "GENUI_UNKNOWN_COMPONENT: root: there is no component Chart",
    ]


def test_a_library_can_be_a_file_or_configured(tmp_path, capsys):
    (tmp_path / "lib").mkdir()
    library = tmp_path / "lib" / "desk.toml"
    library.write_text('root = "Line"\n[[components]]\nname = "Line"\n')
    answer = tmp_path / "answer.txt"
    answer.write_text("root = Line()")
    config = tmp_path / "trunkline.toml"
    config.write_text(f'[genui]\ndirectory = "{tmp_path / "lib"}"\ndefault = "desk"\n')

    assert main(["genui", "check", str(answer), "--library", str(library)]) == 0
    assert main(["genui", "check", str(answer), "--config", str(config)]) == 0
    assert main(["genui", "prompt", "--config", str(config)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(
        "root = Line()\nroot = Line()\nAnswer with a user interface in OpenUI Lang"
    )
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["check", "none.txt"], "none.txt: No such file or directory"),
        (["check", "bad.txt"], "bad.txt: it is not UTF-8"),
        (["check", "bad.txt", "--library", "none"], "--library: no component library has this id"),
        (["check", "bad.txt", "--library", "none.toml"], "none.toml: No such file or directory"),
        (["prompt", "--library", "bad.toml"], "bad.toml: "),
    ],
)
def test_what_can_not_be_read_is_said(tmp_path, monkeypatch, capsys, arguments, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    (tmp_path / "bad.toml").write_bytes(b"\xff")

    assert main(["genui", *arguments]) == 2
    assert problem in capsys.readouterr().err


def test_control_characters_are_not_printed_to_a_terminal(tmp_path, capsys):
    path = tmp_path / "answer.txt"
    path.write_text('root = Stack([Text("\x1b[31m")])')

    assert main(["genui", "check", str(path)]) == 0
    assert capsys.readouterr().out == 'root = Stack([Text("\\u001b[31m")])\n'
