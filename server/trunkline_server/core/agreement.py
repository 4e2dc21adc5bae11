"""What can be told of answers by reading them: whether they refuse, and what they come down to.

Only forms that are unmistakable count. What is overlooked costs little: an answer that is kept, or a wider panel that
is not asked; what is mistaken would cost a caller the answer.
"""

import re
from collections.abc import Sequence
from typing import Final

MAX_READ_CHARS: Final = 20_000  # From the end, where results are.
MAX_REFUSAL_CHARS: Final = 400  # What is longer explains something.
MAX_OPENING_CHARS: Final = 120  # In which a refusal shows.
MAX_SHORT_CHARS: Final = 40  # An answer that is all result.

_OPENERS: Final = (
    *("i", "i'm", "i\u2019m", "i can't", "i\u2019ll", "sorry", "unfortunately", "apologies", "my"),
    *("can't", "cannot", "regrettably"),
)
_REFUSAL: Final = re.compile(
    r"""
    \W*
    (?: i['\u2019]?m\ (?:(?:really|very|so|deeply)\ )?sorry\b | sorry\b | unfortunately\b | regrettably\b
      | (?:my\ )?apologies\b | i\ apologi[sz]e\b )?
    [,.:;!\u2014-]*\ *(?:but\ +)?
    i?['\u2019]?m?\ *
    (?: can(?:no|['\u2019])?t | can\ not | (?:am\ )?(?:not\ able|unable)\ to | won['\u2019]?t | will\ not
      | must\ decline | have\ to\ decline | am\ not\ going\ to )\b
    (?! \ help\ (?:but|noticing|thinking|feeling|it\b) )
    [^.!?\n]{0,40}?
    (?: \b(?:help|assist|comply|provide|fulfil+|answer|do\ that|create|generate|discuss|support|engage|share)
      | \b(?:continue|write)
      | (?<=decline)\b )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NUMBER: Final = r"[-+\u2212]?\d[\d,\u202f ]*(?:\.\d+)?(?:[eE][-+]?\d+)?"
_BOXED: Final = re.compile(r"\\boxed\{([^{}]{1,80})\}")
_STATED: Final = re.compile(
    r"(?:final answer|the answer|answer|result)\s*(?:is|was|:|=)+\s*[*_`$\"'(]*\s*"
    rf"({_NUMBER}|\(?[A-Ea-e]\)?(?![A-Za-z'\u2019])|yes\b|no\b|true\b|false\b)",
    re.IGNORECASE,
)
_CHOICE: Final = re.compile(r"^\W*\(?([A-Ea-e])\)?\W*$")
_ONE_NUMBER: Final = re.compile(_NUMBER)


def refuses(text: str) -> bool:
    """Is this nothing but a refusal, in English words? Other languages' are known by their finish reason alone."""
    return len(text) <= MAX_REFUSAL_CHARS and _REFUSAL.match(text) is not None


def may_refuse(text: str) -> bool:
    """Can a text that begins so still turn out to be a refusal?"""
    text = text.lstrip(" \n\t*_\"'")
    word, space, _ = text.partition(" ")
    word = word.lower()
    if not space:
        return any(opener.startswith(word) or word.startswith(f"{opener},") for opener in _OPENERS)
    if word.rstrip(",.") not in _OPENERS:
        return False
    if len(text) < MAX_OPENING_CHARS:
        return True
    return refuses(text)


def final_result(text: str) -> str | None:
    """The number, the letter, or the yes or no that a text comes down to; None where it does not say one."""
    text = text[-MAX_READ_CHARS:].strip()
    if boxed := _BOXED.findall(text):
        return _normal(boxed[-1])
    if stated := _STATED.findall(text):
        return _normal(stated[-1])
    last = text.rpartition("\n")[2].strip(" \t*_`$.#>")
    if choice := _CHOICE.match(last):
        return choice[1].upper()
    if len(last) <= MAX_SHORT_CHARS and len(numbers := _ONE_NUMBER.findall(last)) == 1:
        # All of the line, or what stands behind an equals sign.
        before = last.partition(numbers[0])[0].strip()
        if not before or before.endswith(("=", ":", "$", "\u20ac", "\u00a3")):
            return _normal(numbers[0])
    if last.lower() in ("yes", "no", "true", "false"):
        return last.lower()
    return None


def results_differ(texts: Sequence[str]) -> bool:
    """Do they come down to different things? Those that come down to nothing do not count."""
    found = {result for text in texts if (result := final_result(text)) is not None}
    return len(found) > 1


def _normal(result: str) -> str:
    result = result.strip().strip("()").strip()
    plain = result.replace("\u2212", "-")
    plain = re.sub(r"[,\u202f ](?=\d{3}(?:\D|$))", "", plain)
    try:
        number = float(plain)
    except ValueError:
        return result.upper() if len(result) == 1 else result.lower()
    return f"{number:.10g}"
