"""What can be told of answers by reading them: whether they refuse, and what they come down to.

Only forms that are unmistakable count. What is overlooked costs little: an answer that is kept, or a wider panel that
is not asked; what is mistaken would cost a caller the answer.

Whoever wrote a text may have meant to hold this process up, so no expression here goes back over more than a few
characters: what repeats is atomic or bounded.
"""

import re
from collections.abc import Sequence
from typing import Final

MAX_READ_CHARS: Final = 20_000  # From the end, where results are.
MAX_REFUSAL_CHARS: Final = 400  # What is longer explains something.
MAX_OPENING_CHARS: Final = 120  # In which a refusal shows.
MAX_SHORT_CHARS: Final = 40  # An answer that is all result.
MIN_TOPIC_CHARS: Final = 25  # What is shorter is too little to be told of what it speaks.
MAX_TOPIC_CHARS: Final = 2_000
SHARED_WORDS: Final = 0.25  # Of the words of the one that has fewer.

# Every refusal begins with one of these, so whoever reads a stream knows early that a text is none.
_APOLOGIES: Final = (
    *("sorry", "unfortunately", "regrettably", "apologies", "my apologies", "my sincere apologies"),
    *("i apologize", "i apologise", "i'm afraid", "i am afraid"),
    *(
        f"{i}{much} sorry"
        for i in ("i'm", "i am")
        for much in ("", " really", " very", " so", " truly", " deeply", " terribly")
    ),
)
_UNABLE: Final = (
    *("i can't", "i cannot", "i can not", "can't", "cannot", "can not", "i'm unable to"),
    *("i am unable to", "i'm not able to", "i am not able to", "i won't", "i will not"),
    *("i'm not going to", "i am not going to", "i must", "i have to", "i respectfully"),
)
_SELVES: Final = ("as an ai", "as a language model", "as a large language model")
_OPENINGS: Final = (*_APOLOGIES, *_UNABLE, *_SELVES)
_BEFORE: Final = " \n\t*_#>\"'\u2018\u201c"

_REFUSAL: Final = re.compile(
    rf"""
    (?: (?:{"|".join(map(re.escape, _APOLOGIES))})\b [,.:;!\u2014-]{{0,2}}\ ?(?:but\ |that\ )? )?
    (?: as\ an?\ (?:large\ )?(?:ai|language)\b [^.,!?\n]{{0,40}}? ,?\ )?
    (?: (?: (?:i\ |i'm\ |i\ am\ )?
            (?: can't | cannot | can\ not | unable\ to | not\ able\ to | not\ going\ to | won't | will\ not )\b
            ,?
            (?: \ (?: really | actually | currently | ethically | legally | knowingly | directly | simply
                  | in\ good\ (?:conscience|faith) | be\ able\ to | and\ (?:won't|will\ not) ),? ){{0,3}}
            \ (?: (?: assist | comply | help (?!\ (?:but|it|myself|\w{{1,16}}ing)\b) )\b
                | (?: do | help ) \ (?:that|this|so) (?=\W*(?:$|[.,!?;\n]|for\ you|because))
                | (?: fulfil{{1,2}} | provide | answer | create | generate | discuss | engage | continue | write | share
                    | produce | offer | give | process | complete | respond | participate )\b
                  (?: \ (?: you\ with | with | in | to | on | any | the | your | such ) ){{0,2}}
                  \ (?: (?:that|this|it|those|these) (?=\W*(?:$|[.,!?;\n]|for\ you|because))
                      | (?:that|this|these|those)\ (?:kind|sort|type)s?\ of\b
                      | (?:\w{{1,20}}\ ){{0,3}}
                        (?: requests? | questions? | instructions? | content | information | guidance | advice
                          | assistance | material | conversation | discussion | topics? | activit(?:y|ies) )\b ) ) )
      | i\ (?: must | have\ to | respectfully | must\ respectfully | have\ to\ respectfully ) \ decline\b
      | i\ (?: can't | cannot ) (?=\W{{0,8}}$) )
    """,
    re.IGNORECASE | re.VERBOSE,
)
# A refusal goes on with an offer, or not at all: what else stands behind "but" is an answer, as is what names terms.
_TERMS: Final = re.compile(
    r"\b(?:without|unless|until|here's|here is|here are)\b|```", re.IGNORECASE
)
_TURN: Final = re.compile(
    r"\b(?:but|however|though|although|that said|nevertheless)\b", re.IGNORECASE
)
_OFFER: Final = re.compile(
    r""",?\ ?
    (?: (?:i|we)(?:'d|'m|'ll|\ am|\ can|\ could|\ would|\ will) (?:\ (?:be|still|also|certainly|gladly)){0,2}
        \ (?: happy | glad | here | help | assist | offer | provide | suggest | discuss | share | explain | explore
            | point | talk | like | love ) (?!\ (?:you\ )?that\b)
      | if\ you | let\ me\ know | feel\ free | please | perhaps | is\ there | there\ are )\b
    """,
    re.IGNORECASE | re.VERBOSE,
)

_DIGITS: Final = r"(?>\d{1,3}(?:[,\u202f\u00a0 ]\d{3})+(?!\d)|\d+)(?>\.\d+)?(?>[eE][-+]?\d{1,4})?"
# One number alone: no date, time, range, power or list.
_NUMBER: Final = (
    rf"(?<![\w.,:/^\u2013-])[-+\u2212]?{_DIGITS}(?>\ ?/\ ?\d+)?"
    r"(?![\d^]|[-:/.\u2013]\d|,\ ?\d|\ (?:or|and|to)\ \d)"
)
_LONG_WORD: Final = re.compile(r"[^\W\d_]{5,}")
_ONE_NUMBER: Final = re.compile(_NUMBER)
_WHOLE_NUMBER: Final = re.compile(rf"[-+\u2212]?{_DIGITS}(?>\ ?/\ ?\d+)?")
_BOXED: Final = re.compile(r"\\boxed\{([^{}]{1,80})\}")
_STATED: Final = re.compile(
    r"\b(?:answer|result)[*_]{0,3}\ {0,2}(?:is|was|:|=)[:=]?[*_]{0,3}\s{0,3}"
    r"(?:(?:therefore|thus|simply|exactly|indeed|still|option|choice)[,:]?\ )?",
    re.IGNORECASE,
)
_AROUND: Final = "*_`$\"'([\\\u201c\u2248~ "
_CLAUSE_ENDS: Final = (
    r"(?=[)\]*_`$\"'\u201d\\]{0,4}(?:$|[.,;:!\n]|\ ?[-\u2014(]|\ (?:because|since|as)\b))"
)
_CHOSEN: Final = re.compile(rf"([A-E])(?![+#]){_CLAUSE_ENDS}", re.IGNORECASE)
_SAID: Final = re.compile(rf"(yes|no|true|false)\b{_CLAUSE_ENDS}", re.IGNORECASE)
_CHOICE: Final = re.compile(r"\W{0,8}([A-E])\W{0,8}", re.IGNORECASE)
_UNIT: Final = re.compile(
    r"[*_`$%\u00b0\u20ac\u00a3)\]]{0,4}(?:\ ?[^\W\d_]{1,16}(?:/[^\W\d_]{1,8})?)?\W{0,4}"
)
_CURRENCIES: Final = "$\u20ac\u00a3"


def refuses(text: str) -> bool:
    """Is this nothing but a refusal, in English words? Other languages' are known by their finish reason alone."""
    if len(text) > MAX_REFUSAL_CHARS:
        return False
    text = _plain(text)
    found = _REFUSAL.match(text)
    if found is None or _TERMS.search(text):
        return False
    turn = _TURN.search(text, found.end())
    return turn is None or _OFFER.match(text, turn.end()) is not None


def may_refuse(text: str) -> bool:
    """Can a text that begins so still turn out to be a refusal?"""
    opening = _plain(text[: 2 * MAX_REFUSAL_CHARS])[:MAX_OPENING_CHARS].lower()
    if not any(begin.startswith(opening) or opening.startswith(begin) for begin in _OPENINGS):
        return False
    return len(opening) < MAX_OPENING_CHARS or refuses(text)


def final_result(text: str) -> str | None:
    """The number, the letter, or the yes or no that a text comes down to; None where it does not say one."""
    text = text[-MAX_READ_CHARS:].strip()
    boxed = _last(_BOXED, text)
    if boxed is not None:
        return _normal(boxed[1])
    stated = _last(_STATED, text)
    if stated is not None and (result := _result_at(text, stated.end())) is not None:
        return result
    last = text.rpartition("\n")[2].strip(" \t*_`$.!#>")
    if len(last) > MAX_SHORT_CHARS:
        return None
    if choice := _CHOICE.fullmatch(last):
        return choice[1].upper()
    numbers = list(_ONE_NUMBER.finditer(last))
    if len(numbers) == 1:
        # All of the line, or what stands behind an equals sign; a unit may follow.
        before = last[: numbers[0].start()].rstrip(f" {_CURRENCIES}")
        is_all = not before or before.endswith(("=", ":"))
        if is_all and _UNIT.fullmatch(last, numbers[0].end()):
            return _normal(numbers[0][0])
    if last.lower() in ("yes", "no", "true", "false"):
        return last.lower()
    return None


def results_differ(texts: Sequence[str]) -> bool:
    """Do they come down to different things? Those that come down to nothing do not count."""
    found = {result for text in texts if (result := final_result(text)) is not None}
    return len(found) > 1


def _plain(text: str) -> str:
    """Without what may stand before the first word, and with plain apostrophes."""
    return text.lstrip(_BEFORE).replace("\u2019", "'")


def _last(expression: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for found in expression.finditer(text):  # noqa: B007 - the last one counts
        pass
    return found


def _result_at(text: str, at: int) -> str | None:
    """What is stated there."""
    rest = text[at : at + 2 * MAX_SHORT_CHARS].lstrip(_AROUND + _CURRENCIES)
    if number := _ONE_NUMBER.match(rest):
        return _normal(number[0])
    if choice := _CHOSEN.match(rest):
        return choice[1].upper()
    if said := _SAID.match(rest):
        return said[1].lower()
    return None


def may_differ_in_topic(first: str, second: str) -> bool:
    """Could they be about different things? Not, where they share many words, or are too short to tell."""
    if min(len(first), len(second)) < MIN_TOPIC_CHARS:
        return False
    words, others = (set(_LONG_WORD.findall(t[:MAX_TOPIC_CHARS].lower())) for t in (first, second))
    return len(words & others) < SHARED_WORDS * max(1, min(len(words), len(others)))


def _normal(result: str) -> str:
    """The same for the same, however it is written."""
    result = result.rpartition("=")[2].strip("\\$%() \u20ac\u00a3\u00b0").replace("\u2212", "-")
    if _WHOLE_NUMBER.fullmatch(result):
        over, _, under = re.sub(r"[,\u202f\u00a0 ]", "", result).partition("/")
        if not under or float(under):
            return f"{float(over) / float(under or 1):.10g}"
    return result.upper() if len(result) == 1 else result.lower()
