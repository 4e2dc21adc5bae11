"""`trunkline classify` as an operator runs it: without a server."""

import io
import json
from pathlib import Path

import pytest

from trunkline_server.cli import main


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A folder without a configuration."""
    monkeypatch.chdir(tmp_path)


def classify(capsys, *arguments):
    """The exit code, and what was printed."""
    code = main(["classify", *arguments])
    return code, capsys.readouterr().out


def test_rule_says_which_mode_it_is(capsys):
    assert classify(capsys, "Roast my haircut") == (0, "roast  0.97  by rules\n")


def test_guess_comes_with_what_else_it_might_be(capsys):
    code, out = classify(capsys, "hello, how are you today?")

    first, second = out.splitlines()
    assert code == 0
    assert first.startswith("fast  0.")
    assert second.startswith("also: ")
    assert {mode.split()[0] for mode in second.removeprefix("also: ").split(", ")} == {
        *("code", "image", "think"),
    }


def test_program_reads_json(capsys):
    code, out = classify(capsys, "--json", "what is the capital of France?")

    found = json.loads(out)
    assert code == 0
    assert list(found) == ["mode", "confidence", "tier", "alternatives"]
    assert found["mode"] == "fast"
    said = [found["confidence"], *(other["confidence"] for other in found["alternatives"])]
    assert sum(said) == pytest.approx(1, abs=0.003)
    assert said == sorted(said, reverse=True)


def test_prompt_may_come_by_standard_input(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("def add(a, b):\n    return a + b\n"))

    assert classify(capsys) == (0, "code  0.97  by rules\n")


def test_what_comes_with_the_prompt_counts(capsys):
    assert classify(capsys, "draw a cat", "--tools")[1].splitlines()[0].split()[0] != "image"
    assert classify(capsys, "remove the background", "--media", "image") == (
        0, "image  0.95  by rules\n",
    )  # fmt: skip


def test_modes_of_the_configuration_count(capsys):
    Path("trunkline.toml").write_text(
        '[classifier]\nembedding = false\n\n[[modes]]\nid = "roast"\nenabled = false\n'
    )

    code, out = classify(capsys, "--json", "Roast my haircut")

    assert code == 0
    assert json.loads(out)["tier"] in ("linear", "default")
    assert "roast" not in out


def test_nothing_to_classify_is_a_wrong_command(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)

    assert main(["classify"]) == 2
    assert capsys.readouterr().err == "trunkline: classify needs a prompt\n"
