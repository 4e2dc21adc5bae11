"""Features of a text, and what linear heads make of them."""

import math

import pytest

from trunkline_server.routing.mode_features import MAX_TOKENS, features
from trunkline_server.routing.mode_heads import Heads, load_heads

HEADS = Heads(
    modes=("code", "fast"),
    bias=(0.5, -0.5),
    weights={"sort": (2_000, -1_000), "hi": (-3_000, 4_000)},
    temperature=2.0,
    embedding_bias=(0.0, 1.0),
    embedding_rows=((1.0, 0.0), (0.0, 2.0)),
    joint_temperature=1.0,
)


def test_text_shows_its_words_its_pairs_of_words_and_its_shape():
    assert features("Sort 3 lists?") == {
        *("sort", "#n", "lists", "?"),
        *("sort #n", "#n lists", "lists ?"),
        *("^sort", "^sort #n", "?$"),
        *("#chars0", "#lines0", "#figures1", "#commas0"),
    }


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("call it: total(1, 2)", "#call"),
        ("my_list is empty", "#snake"),
        ("useState is odd", "#camel"),
        ("open src/main.rs", "#file"),
        ("what is `foo`", "#quoted"),
        (r"show that \frac holds", "#latex"),
        ("x = 3", "#equation"),
        ("A. one\nB. two", "#options"),
        ("it costs $5", "#money"),
        ("} else {", "#braces"),
        ("then Anna left", "#name"),
        ("no question", "#no?"),
    ],
)
def test_shape_of_a_text_is_a_feature(text, shape):
    assert shape in features(text)
    assert shape not in features("is it so?")


def test_text_without_a_sign_shows_nothing():
    assert features("") == features(" \n\t ") == set()


def test_no_more_of_a_text_is_read_than_is_said():
    assert len(features(" ".join(f"w{chr(97 + n % 26)}{'x' * (n // 26)}" for n in range(900)))) < (
        4 * MAX_TOKENS
    )


def test_words_add_up_and_a_long_text_is_no_surer():
    assert HEADS.of_words({"sort"}) == [2.5, -1.5]
    assert HEADS.of_words({"sort", "hi", "unknown"}) == pytest.approx(
        [0.5 - 1 / math.sqrt(2), -0.5 + 3 / math.sqrt(2)]
    )
    assert HEADS.of_words(set()) == [0.5, -0.5]


def test_model_adds_to_half_of_what_the_words_say():
    assert HEADS.of_vector([3.0, 1.0]) == [3.0, 3.0]
    assert HEADS.joint([2.0, -2.0], [3.0, 3.0]) == [4.0, 2.0]


def test_probabilities_are_tempered_and_sum_to_one():
    alone = HEADS.probabilities([2.0, -2.0], None)
    both = HEADS.probabilities([2.0, -2.0], [3.0, 3.0])

    assert alone == pytest.approx({"code": 1 / (1 + math.exp(-2)), "fast": 1 / (1 + math.exp(2))})
    assert both == pytest.approx({"code": 1 / (1 + math.exp(-2)), "fast": 1 / (1 + math.exp(2))})


def test_heads_that_ship_are_whole():
    heads = load_heads()

    assert heads.modes == ("code", "fast", "image", "think")
    assert {len(row) for row in heads.weights.values()} == {4}
    assert [len(row) for row in heads.embedding_rows] == [384] * 4
    assert len(heads.bias) == len(heads.embedding_bias) == 4
    assert heads.temperature > 0
    assert heads.joint_temperature > 0
