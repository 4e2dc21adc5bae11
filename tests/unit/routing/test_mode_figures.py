"""How well modes are told, on prompts that others wrote: what docs/modes.md says, and what it must not fall below."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
ROW = re.compile(
    r"^\| (sources of which .+?) \| (\d+) \| (.+?) \| ([\d.]+) \| ([\d.]+)% \|", re.MULTILINE
)

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def weights() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mode_weights", ROOT / "scripts/mode_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Its dataclasses look themselves up there.
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(weights):
    """Macro accuracy and the share that was wrongly given a costly mode, by part of the prompts and by way."""
    made = weights.load_heads()
    _, seen, unseen = weights.prompts()
    model = weights.Glimpse()
    return {
        (name, way): weights.measured(weights.classifier(made, with_model), rows)
        for name, rows in (("seen", seen), ("unseen", unseen))
        for way, with_model in (("model", model), ("words", None))
    }


@pytest.mark.parametrize(
    ("name", "way", "least"),
    [
        ("seen", "model", 0.86),
        ("seen", "words", 0.86),
        ("unseen", "model", 0.75),
        ("unseen", "words", 0.75),
    ],
)
def test_modes_are_told_on_prompts_of_others(measured, name, way, least):
    found = measured[name, way]

    assert found.macro >= least
    assert found.wrongly_costly < 0.005
    assert found.calibration_error < 0.06


def test_page_says_what_is_measured(measured):
    page = (ROOT / "docs/modes.md").read_text(encoding="utf-8")

    rows = ROW.findall(page)

    assert [int(row[1]) for row in rows] == [len(found.results) for found in measured.values()]
    # Another processor rounds the model's sums otherwise.
    for row, found in zip(rows, measured.values(), strict=True):
        assert float(row[3]) == pytest.approx(found.macro, abs=0.01)
        assert float(row[4]) == pytest.approx(found.wrongly_costly * 100, abs=0.3)


def test_training_knows_none_of_the_prompts_that_are_measured(weights):
    training, seen, unseen = weights.prompts()

    learnt = {prompt.text.strip().lower() for prompt in training}

    assert not [p for p in (*seen, *unseen) if p.text.strip().lower() in learnt]
    assert {p.source for p in training}.isdisjoint(p.source for p in unseen)
    for source in {p.source for p in seen}:
        assert sum(p.source == source for p in training) <= weights.SEEN_OF_A_SOURCE
