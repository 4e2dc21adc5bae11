"""Words cut into the pieces that the model was trained with: as the library that everybody uses for it does."""

import hashlib
import random
from importlib.resources import files

import pytest
from tokenizers import BertWordPieceTokenizer

from trunkline_server.embedding.wordpiece import WordPieces

VOCABULARY = files("trunkline_server.embedding") / "vocabulary.txt"
PUBLISHED = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
PIECES = WordPieces()
ALPHABET = (
    "abcdefghij  \t\n\r.,;!?'-_$^`~\x00\x07\x0b\x0c\x1c\x7f\x85"
    "éÜßİıΣσςжЖ你好한글ภาع\u0301\u200b\ufeff\ufffd😀½²№“”—…ﬁＡ" + "".join(map(chr, range(32, 127)))
)


@pytest.fixture(scope="module")
def theirs() -> BertWordPieceTokenizer:
    return BertWordPieceTokenizer(str(VOCABULARY))


def test_the_vocabulary_is_the_published_one():
    assert hashlib.sha256(VOCABULARY.read_bytes()).hexdigest() == PUBLISHED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The capital of France is Paris.",
        "It's 9:40, isn't it? Unbelievably well-documented: naïve café, 3.5 kg (±2 %).",
        "```python\ndef top(items):\n    return max(items)  # first!\n```",
        "Die Brücke wurde für Fußgänger gesperrt.",
        "今天天气很好。このキノコは食べられません。",
        "Сегодня хорошая погода. \u0645\u0631\u062d\u0628\u0627",
        "x" * 100 + " " + "x" * 101,
        "tab\tnew\nline\r\nform\x0cfeed\x85next",
    ],
)
def test_texts_are_cut_as_the_library_cuts_them(theirs, text):
    assert PIECES.numbers(text) == theirs.encode(text, add_special_tokens=False).ids


def test_anything_is_cut_as_the_library_cuts_it(theirs):
    draw = random.Random(1)
    texts = ["".join(draw.choices(ALPHABET, k=draw.randrange(40))) for _ in range(5_000)]

    ours = [PIECES.numbers(text) for text in texts]

    assert ours == [e.ids for e in theirs.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("The water is hot", 1.0),
        ("Das Wasser ist heiß", 1.0),
        ("Погода", 0.0),
        ("今天天气", 0.0),
        ("", 0.0),
    ],
)
def test_it_is_known_how_much_of_a_text_is_in_an_alphabet_that_is_read(text, share):
    assert PIECES.share_read(PIECES.numbers(text)) == share
