"""Whether two answers claim the same, as far as that can be told from their words.

A model that compares whole texts hardly sees a changed number, a changed name or a "not": they are one word of many. So
its word is only taken where all of that is the same. What is looked at:

- numbers, also in words, each with the unit behind it; signs such as `$`, `%` and `<`; names, which are words with a
  capital that no sentence gave them, and whatever is no plain word, such as a path or `H2O`: all of it, in this order;
- what is negated or left out, and what something is compared with, or comes before or after;
- words of opposite meaning, such as left and right: the same of them, in the same order;
- whether words have changed places, or one or two were put in the place of others: who is allergic to nuts and may eat
  eggs is not who is allergic to eggs and may eat nuts;
- code, letter by letter.

Many answers that say the same fail here. That costs little: they are aggregated as others are. What passes may still
say something else in other words, which the model is good at. The words known here are English, so texts in other
languages claim nothing that could be told.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise, zip_longest
from typing import Final, NamedTuple

from trunkline_server.core.english import (
    FOREIGN,
    FUNCTION,
    NEGATIONS,
    OPPOSITES,
    QUANTITIES,
    RELATIONS,
)

MAX_READ_CHARS: Final = 8_000  # What is longer takes too long to read, and is hardly the same.
MAX_TIMES_LONGER: Final = 2  # The other, and so many characters on top.
MAX_CHARS_LONGER: Final = 40
SHARED_WORDS: Final = 0.5  # Of the long words of the one that has more.
MIN_COMPARED: Final = 5  # With fewer of them that tells nothing.
MIN_FUNCTION_SHARE: Final = 0.12  # Of the words of an English text; a quarter or more is usual.
MAX_FOREIGN_SHARE: Final = 0.5  # Of that, words which are as common elsewhere.
# Different words on either side: with so few, it is another fact and not another wording.
MAX_REPLACED: Final = 2
MAX_REACH: Final = 4  # Words from a negation to what it negates.

_DENIALS: Final = ("un", "in", "im", "il", "ir", "non", "dis", "mis", "anti", "de", "a")
MIN_DENIED: Final = 4  # Letters of what is denied, or "to" and "into" were opposites.

_CODE: Final = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`", re.DOTALL)
# Of Markdown, where a line begins: quotes, headings, bullets and rules.
_LAYOUT: Final = re.compile(
    r"^[ \t]*+(?:[>#]+[ \t]+|[-*+\u2022][ \t]+|[-=*_]{3,}[ \t]*$)", re.MULTILINE
)
# Runs without a blank, signs, and what ends a clause.
_TOKEN: Final = re.compile(
    r"""
      (?P<run> [/\\.@]?\w[\w./\\:,@+'-]* )
    | (?P<sign> [$\u20ac\u00a3\u00a5\u20b9%\u00b0<>=\u2260\u2264\u2265\u2248\u00b1+\u00d7\u00f7\u221a\u221e]
      | [\^~&@?#-] | !(?==) )
    | (?P<stop> [.!:;,()\[\]"\n][.!:;,()\[\]"\s]* )
    """,
    re.VERBOSE,
)
_PART: Final = re.compile(
    r"(?P<number>\d+(?:[.,:]\d+)*)|(?P<word>[^\W\d_]+(?:'[^\W\d_]+)*)|(?P<stop>[.:])"
)
_LETTER: Final = re.compile(r"[^\W\d_]")
_ODD: Final = re.compile(r"[\d/\\_@+]")
_LONG_WORD: Final = re.compile(r"[^\W\d_]{5,}")
_DIGIT: Final = re.compile(r"\d")
_THOUSANDS: Final = re.compile(r",(?=\d{3}(?:\D|$))")
_TIMES: Final = re.compile(r"(?<=\d) ?\* ?(?=\d)")
_SUBTRACTS: Final = re.compile(r"- ?[\d.$\u20ac\u00a3]")
_PLAIN: Final = str.maketrans(
    {"\u2019": "'", "\u2018": "'", "\u2212": "-", "\u2013": "-", "\u2014": ",", "*": " "}
    | {"\u00b2": "^2", "\u00b3": "^3"}
)
_TAIL: Final = "./\\:,@'-"
_SENTENCE_ENDS: Final = frozenset('.!?:\n"(')
ODD: Final = "odd"  # No plain word.


class Token(NamedTuple):
    """A word, a number, a sign, a stop, or what is none of these.

    Attributes:
        word: the text in small letters.
        begins: is it the first of a sentence?
    """

    kind: str
    text: str
    word: str
    begins: bool


class Claims:
    """What a text says, to be held against another."""

    def __init__(self, text: str) -> None:
        self.code = [piece.strip("`~").strip() for piece in _CODE.findall(text)]
        if self.code:
            text = _CODE.sub(" ", text)
        text = _TIMES.sub("\u00d7", _LAYOUT.sub("", text)).translate(_PLAIN)
        if not text.isascii():
            # Some characters are whole phrases.
            text = unicodedata.normalize("NFKC", text)[:MAX_READ_CHARS]
        self.tokens = list(_tokens(text))
        words = [t for t in self.tokens if t.kind == "word"]
        self.stems = [_stem(t.word) for t in words]
        self.small_stems = {_stem(t.word) for t in words if t.text == t.word}
        self.contents = [
            _stem(t.word) for t in words if t.word not in FUNCTION and not _negates(t.word)
        ]
        self.is_read = _is_english(words)

    @property
    def said(self) -> list[str]:
        """All of it that is no punctuation."""
        return [token.text for token in self.tokens if token.kind != "stop"]

    def facts(self, common: set[str]) -> list[str]:
        """Numbers, names, signs and what is no plain word, in their order. `common`: stems that are not of names."""
        return [fact for token in self.tokens if (fact := _fact(token, common))]

    def units(self) -> list[str]:
        """What stands behind each number, or nothing."""
        return [
            self._behind(index, 1)
            for index, token in enumerate(self.tokens)
            if token.kind == "number" or token.word in QUANTITIES
        ]

    def turns(self) -> Counter[tuple[str, str]]:
        """The words that turn the sense of what follows, each with what does."""
        found: Counter[tuple[str, str]] = Counter()
        for index, token in enumerate(self.tokens):
            if _negates(token.word):
                found["not", self._behind(index, MAX_REACH)] += 1
            elif token.word in RELATIONS:
                found[token.word, self._behind(index, MAX_REACH)] += 1
        return found

    def _behind(self, index: int, reach: int) -> str:
        """The stem of the first word with a meaning of its own, before anything stops; or nothing."""
        for token in self.tokens[index + 1 : index + 1 + reach]:
            if token.kind == "stop":
                break
            if token.kind == "word" and token.word not in FUNCTION:
                return _stem(token.word)
        return ""


def same_claims(first: str, second: str) -> bool | None:
    """True: they differ in punctuation and layout at most. False: in what they claim, or that can't be told.

    None: in words only, and how much alike they are is for somebody else to say.
    """
    if not _may_be_same(first, second):
        return False
    a, b = Claims(first), Claims(second)
    if a.code != b.code:
        return False
    if a.said == b.said:
        return bool(a.said or a.code)
    common = a.small_stems | b.small_stems
    differ = (
        not a.is_read
        or not b.is_read
        or a.facts(common) != b.facts(common)
        or any(x != y and x and y for x, y in zip_longest(a.units(), b.units()))
        or a.turns() != b.turns()
        or _oppose(a.stems, b.stems)
        or _denies(a.small_stems, b.small_stems)
        or _denies(b.small_stems, a.small_stems)
        or _swaps(a.contents, b.contents)
    )
    return False if differ else None


def _may_be_same(first: str, second: str) -> bool:
    """At a glance, which is enough for most that differ and costs a tenth of reading them."""
    sizes = sorted((len(first), len(second)))
    if (
        sizes[1] > min(MAX_READ_CHARS, MAX_TIMES_LONGER * sizes[0] + MAX_CHARS_LONGER)
        or first.count("`") != second.count("`")
        or _DIGIT.findall(first) != _DIGIT.findall(second)
    ):
        return False
    words, others = (set(_LONG_WORD.findall(text.lower())) for text in (first, second))
    most = max(len(words), len(others))
    return most < MIN_COMPARED or len(words & others) >= SHARED_WORDS * most


def _tokens(text: str) -> Iterator[Token]:
    begins = True
    for match in _TOKEN.finditer(text):
        found = match[0]
        if found.isalpha():
            yield Token("word", found, found.lower(), begins)
            begins = False
            continue
        match match.lastgroup:
            case "stop":
                begins = begins or not _SENTENCE_ENDS.isdisjoint(found)
                yield Token("stop", found, found, False)
            case "sign":
                if found != "-" or _is_minus(text, match.start()):
                    yield Token("sign", found, found, False)
                begins = begins or found == "?"
            case _:
                run = found.rstrip(_TAIL)
                for token in _parts(run, begins):
                    begins = token.kind == "stop"
                    yield token
                if run != found:
                    begins = not _SENTENCE_ENDS.isdisjoint(found[len(run) :])
                    yield Token("stop", found[len(run) :], "", False)


def _parts(run: str, begins: bool) -> Iterator[Token]:
    """Of a run: itself, if it is no plain word; or the words and numbers in it."""
    if run.startswith("_"):
        run = run.strip("_")  # For emphasis, mostly.
    if _ODD.search(run) and _LETTER.search(run):
        yield Token(ODD, run, run, begins)
        return
    for part in _PART.finditer(run):
        text = part[0].removesuffix("'s")
        yield Token(part.lastgroup or "", text, text.lower(), begins)
        begins = part.lastgroup == "stop"


def _is_minus(text: str, at: int) -> bool:
    """Is this hyphen before a number, and not one between two parts of something?"""
    return not (at and text[at - 1].isalnum()) and _SUBTRACTS.match(text, at) is not None


def _is_english(words: list[Token]) -> bool:
    """And written with capitals, where names have them?"""
    known = sum(t.word in FUNCTION or _negates(t.word) for t in words)
    foreign = sum(t.word in FOREIGN for t in words)
    return (
        any(t.text != t.word for t in words)
        and known >= MIN_FUNCTION_SHARE * len(words)
        and foreign <= MAX_FOREIGN_SHARE * known
    )


def _fact(token: Token, common: set[str]) -> str:
    match token.kind:
        case "number":
            return _THOUSANDS.sub("", token.text)
        case "sign" | "odd":
            return token.text
        case "word" if token.word in QUANTITIES:
            return token.word
        case "word" if token.text != token.word and _is_name(token, common):
            return token.text
    return ""


def _is_name(token: Token, common: set[str]) -> bool:
    """A capital where a sentence begins is only a name's if nothing says otherwise."""
    if token.word == "i" or token.word.startswith("i'"):
        return False
    if not token.begins:
        return True
    is_common = token.word in FUNCTION or _negates(token.word) or _stem(token.word) in common
    return token.word != "yes" and not (is_common and token.text[1:] == token.word[1:])


def _negates(word: str) -> bool:
    return word in NEGATIONS or word.endswith("n't")


def _oppose(stems: list[str], others: list[str]) -> bool:
    """Has one of them a word where the other has its opposite?"""
    present = _POLAR & {*stems, *others}
    return any(
        [s for s in stems if s in pair] != [s for s in others if s in pair]
        for pair in _OPPOSITES
        if pair <= present
    )


def _denies(stems: set[str], others: set[str]) -> bool:
    """Have the others, for a word that they lack, the same with a syllable that denies it?"""
    missing = [stem for stem in stems - others if len(stem) >= MIN_DENIED]
    return any(denial + stem in others for stem in missing for denial in _DENIALS) or any(
        f"{stem[:-3]}les" in others for stem in missing if stem.endswith("ful")
    )


def _swaps(contents: list[str], others: list[str]) -> bool:
    """Have words changed places, or one or two been put in the place of others?

    What stands at the end may move to the front as a whole, as a clause does; anything else is another order.
    """
    counts, other_counts = Counter(contents), Counter(others)
    gone, come = counts.keys() - other_counts.keys(), other_counts.keys() - counts.keys()
    if gone and come and max(len(gone), len(come)) <= MAX_REPLACED:
        return True
    once = {stem: at for at, stem in enumerate(contents) if counts[stem] == 1}
    places = [once[stem] for stem in others if stem in once and other_counts[stem] == 1]
    if len(places) == 2:
        return places[0] > places[1]
    # Round in a circle there is one step back in any order that is only turned.
    return sum(x > y for x, y in pairwise([*places, *places[:1]])) > 1


@lru_cache(8_192)
def _stem(word: str) -> str:
    """Near enough for the forms of one word."""
    for ending in ("ing", "ies", "ed", "es", "ly", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


_OPPOSITES: Final = [frozenset(map(_stem, pair)) for pair in OPPOSITES]
_POLAR: Final = frozenset().union(*_OPPOSITES)
