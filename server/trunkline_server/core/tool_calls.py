"""Judgements on the calls that a model makes: do they repeat themselves, do they fit, how much of a result is shown.

Sans-I/O. Source of the numbers: "Agent loop" in the design, after what loops of agents are seen to do.
"""

import json
import math
from collections import Counter, deque
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs

from trunkline_server.core.schema_looks import MAX_LOOKS, Looks
from trunkline_server.core.validation import (
    MAX_JSON_DEPTH,
    forget_unknown_dialect,
    json_depth_is_bounded,
)

NOTE_AT: Final = 3  # Calls of the same tool with the same arguments.
STOP_AT: Final = 5
CYCLE: Final = 8  # Calls that go A, B, A, B, ...
MAX_REPAIRS: Final = 2  # Answers to calls that can't be run, in one request.
MAX_SHOWN_CHARS: Final = 16 * 1024
MAX_ARGUMENTS_CHARS: Final = 256 * 1024
HEAD_SHARE: Final = 0.75
MAX_PROBLEMS: Final = 3
MAX_PROBLEM_CHARS: Final = 200
MAX_TOLD_LOOKS: Final = (
    5_000  # Saying what does not fit takes a hundred times as long as seeing that it doesn't.
)
REGEX_BYTES: Final = 512 * 1024
MAX_BACKTRACKS: Final = 10_000  # Half a millisecond.
MAX_CACHED_CHARS: Final = 16 * 1024  # Of schemas that are kept,
MAX_CACHED_PATTERNS: Final = 2  # and of the expressions in them.


class Repetition(Enum):
    """What becomes of a call."""

    NONE = "none"
    NOTED = "noted"  # It runs, and the model is told.
    STOPPED = "stopped"  # It does not run, and nothing else does.


class RepetitionWatch:
    """Sees all calls of one request, in order."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._last: deque[str] = deque(maxlen=CYCLE)

    def see(self, name: str, arguments: object) -> Repetition:
        """One more call, with its arguments as they were parsed."""
        signature = f"{name} {json.dumps(arguments, sort_keys=True, separators=(',', ':'))}"
        self._counts[signature] += 1
        self._last.append(signature)
        count = self._counts[signature]
        if count >= STOP_AT or self._goes_in_circles():
            return Repetition.STOPPED
        return Repetition.NOTED if count >= NOTE_AT else Repetition.NONE

    def _goes_in_circles(self) -> bool:
        last = list(self._last)
        return (
            len(last) == CYCLE
            and len(set(last)) > 1
            and len(set(last[::2])) == 1
            and len(set(last[1::2])) == 1
        )


class Arguments:
    """What a tool takes.

    Args:
        schema_json: a JSON Schema that was checked before; empty: any object.

    Raises:
        ValueError: it refers to what is not in it; UncheckableSchema: it would take too long to check anything.
    """

    def __init__(self, schema_json: str) -> None:
        schema = json.loads(schema_json) if schema_json else {}
        forget_unknown_dialect(schema)
        self._looks = Looks(schema)
        # References lead nowhere but into the schema itself: what a schema names is not fetched.
        self._validator = jsonschema_rs.validator_for(
            schema,
            retriever=_refuse,
            pattern_options=jsonschema_rs.FancyRegexOptions(
                backtrack_limit=MAX_BACKTRACKS, size_limit=REGEX_BYTES, dfa_size_limit=REGEX_BYTES
            ),
        )

    @property
    def patterns(self) -> int:
        """How many regular expressions there are in it."""
        return self._looks.patterns

    def parse(self, text: str) -> tuple[dict[str, Any] | None, str]:
        """The arguments, or None and what is wrong with them, in words for the model."""
        value, problem = object_of(text)
        if value is None:
            return None, problem
        looks = self._looks.at(value, len(text))
        if looks > MAX_LOOKS:
            return None, "the arguments are too many to be checked against the tool's schema"
        if self._validator.is_valid(value):
            return value, ""
        if looks > MAX_TOLD_LOOKS:
            return None, "the arguments do not fit the tool's schema"
        problems = []
        for error in self._validator.iter_errors(value):
            path = "/".join(str(step) for step in error.instance_path)
            problems.append(f"at /{path}: {error.message[:MAX_PROBLEM_CHARS]}")
            if len(problems) == MAX_PROBLEMS:
                break
        return None, "; ".join(problems)


def object_of(text: str) -> tuple[dict[str, Any] | None, str]:
    """A call's arguments as they were written, or None and what is wrong with them."""
    if len(text) > MAX_ARGUMENTS_CHARS:
        return None, f"the arguments are longer than {MAX_ARGUMENTS_CHARS} characters"
    try:
        value = json.loads(text or "{}", parse_constant=_no_constant, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # Half a surrogate pair is no text.
    except (ValueError, RecursionError):
        return None, "the arguments are no JSON"
    if not isinstance(value, dict):
        return None, "the arguments are no JSON object"
    if not json_depth_is_bounded(text):
        return None, f"the arguments nest deeper than {MAX_JSON_DEPTH} levels"
    return value, ""


def arguments_of(schema_json: str) -> Arguments:
    """What a tool takes. Tools repeat from request to request, so small schemas are read once.

    Raises:
        ValueError: as `Arguments`.
    """
    if len(schema_json) > MAX_CACHED_CHARS or schema_json.count("attern") > MAX_CACHED_PATTERNS:
        return Arguments(schema_json)
    return _arguments_of(schema_json)


_arguments_of: Final = lru_cache(maxsize=256)(Arguments)


def is_long(text: str) -> bool:
    """Is it more of a result than the model is shown?"""
    return len(text) > MAX_SHOWN_CHARS


def shown(text: str, call_id: str, *, is_kept: bool = True) -> str:
    """What the model sees of a result: all of it, or its head and tail, and how to get the rest where that is kept."""
    if not is_long(text):
        return text
    head = int(MAX_SHOWN_CHARS * HEAD_SHARE)
    tail = MAX_SHOWN_CHARS - head
    note = f"{len(text) - head - tail} characters left out"
    if is_kept:
        arguments = f'{{"tool_call_id": {json.dumps(call_id)}, "offset": {head}}}'
        note += f"; read_result gives them: {arguments}"
    return f"{text[:head]}\n[... {note}]\n{text[-tail:]}"


def _refuse(uri: str) -> Any:
    raise ValueError("no schema is fetched")


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("too large")
    return value
