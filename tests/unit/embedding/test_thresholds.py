"""What the model and the rules about claims make of pairs of answers: where the thresholds of panels come from."""

from itertools import chain

import pytest

from tests.unit.embedding.pairs import ELSEWHERE, LOOSE, SAME, TOLD_APART, Pair
from trunkline_server.completion.panel import AGREE, DISAGREE
from trunkline_server.core.agreement import MIN_TOPIC_CHARS, may_differ_in_topic
from trunkline_server.core.claims import same_claims
from trunkline_server.embedding.model import Model

DIFFERENT = [*TOLD_APART, *ELSEWHERE, *LOOSE]


@pytest.fixture(scope="module")
def cosines() -> dict[Pair, float]:
    """Of all pairs; 0 for what is not known."""
    model = Model()
    return {
        pair: model.cosine(pair.first, pair.second) or 0.0
        for pair in chain(SAME, TOLD_APART, ELSEWHERE, LOOSE)
    }


def is_long(pair: Pair) -> bool:
    return min(len(pair.first), len(pair.second)) >= MIN_TOPIC_CHARS


def agree(pair: Pair, cosine: float) -> bool:
    is_same = same_claims(pair.first, pair.second)
    return is_same or (is_same is None and cosine >= AGREE)


def test_no_pair_that_says_different_things_agrees(cosines):
    assert [pair for pair in DIFFERENT if agree(pair, cosines[pair])] == []


def test_the_model_alone_would_let_every_other_changed_detail_pass(cosines):
    mistaken = [pair for pair in TOLD_APART if cosines[pair] >= AGREE]

    assert len(mistaken) > len(TOLD_APART) / 3


def test_the_rules_alone_would_let_other_statements_pass(cosines):
    mistaken = [pair for pair in DIFFERENT if same_claims(pair.first, pair.second) is None]

    assert mistaken
    assert max(cosines[pair] for pair in mistaken) < AGREE - 0.05


def test_some_pairs_that_say_the_same_agree(cosines):
    found = [pair for pair in SAME if agree(pair, cosines[pair])]

    assert len(found) >= len(SAME) / 4


@pytest.mark.parametrize("pairs", [SAME, LOOSE], ids=["same", "loose"])
def test_answers_to_one_question_are_of_one_mind(cosines, pairs):
    found = [
        pair
        for pair in pairs
        if may_differ_in_topic(pair.first, pair.second) and cosines[pair] < DISAGREE
    ]

    assert found == []


def test_answers_about_different_things_are_of_different_minds(cosines):
    unrelated = [pair for pair in ELSEWHERE if pair.kind == "unrelated" and is_long(pair)]
    missed = [
        pair
        for pair in unrelated
        if cosines[pair] >= DISAGREE or not may_differ_in_topic(pair.first, pair.second)
    ]

    assert len(unrelated) >= 5
    assert missed == []


def test_what_shares_many_words_need_not_be_compared(cosines):
    skipped = [
        pair
        for pair in cosines
        if is_long(pair) and not may_differ_in_topic(pair.first, pair.second)
    ]

    assert len(skipped) > len(cosines) / 2
    assert [pair for pair in skipped if 0 < cosines[pair] < DISAGREE + 0.1] == []
