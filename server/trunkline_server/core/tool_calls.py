"""Judgements on the calls that a model makes: do they repeat themselves, do they fit, how much of a result is shown.

Sans-I/O. Source of the numbers: "Agent loop" in the design, after what loops of agents are seen to do.
"""

import json
from collections import Counter, deque
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs

from trunkline_server.core.validation import forget_unknown_dialect

NOTE_AT: Final = 3  # Calls of the same tool with the same arguments.
STOP_AT: Final = 5
CYCLE: Final = 8  # Calls that go A, B, A, B, ...
MAX_REPAIRS: Final = 2  # Answers to calls that can't be run, in one request.
MAX_SHOWN_CHARS: Final = 16 * 1024
MAX_ARGUMENTS_CHARS: Final = 256 * 1024
HEAD_SHARE: Final = 0.75
MAX_PROBLEMS: Final = 3
MAX_PROBLEM_CHARS: Final = 200


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
    """

    def __init__(self, schema_json: str) -> None:
        schema = json.loads(schema_json) if schema_json else {}
        forget_unknown_dialect(schema)
        # References lead nowhere but into the schema itself: what a schema names is not fetched.
        self._validator = jsonschema_rs.validator_for(schema, retriever=_refuse)

    def parse(self, text: str) -> tuple[dict[str, Any] | None, str]:
        """The arguments, or None and what is wrong with them, in words for the model."""
        if len(text) > MAX_ARGUMENTS_CHARS:
            return None, f"the arguments are longer than {MAX_ARGUMENTS_CHARS} characters"
        try:
            value = json.loads(text or "{}", parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return None, "the arguments are no JSON"
        if not isinstance(value, dict):
            return None, "the arguments are no JSON object"
        problems = []
        for error in self._validator.iter_errors(value):
            path = "/".join(str(step) for step in error.instance_path)
            problems.append(f"at /{path}: {error.message[:MAX_PROBLEM_CHARS]}")
            if len(problems) == MAX_PROBLEMS:
                break
        return (None, "; ".join(problems)) if problems else (value, "")


# Tools repeat from request to request, so their schemas are read once.
arguments_of: Final = lru_cache(maxsize=1024)(Arguments)


def shown(text: str, call_id: str) -> tuple[str, bool]:
    """What the model sees of a result: all of it, or its head and tail and how to get the rest; and was it cut?"""
    if len(text) <= MAX_SHOWN_CHARS:
        return text, False
    head = int(MAX_SHOWN_CHARS * HEAD_SHARE)
    tail = MAX_SHOWN_CHARS - head
    left_out = len(text) - head - tail
    note = (
        f"\n[... {left_out} characters left out; read_result gives them: "
        f'{{"tool_call_id": {json.dumps(call_id)}, "offset": {head}}}]\n'
    )
    return f"{text[:head]}{note}{text[-tail:]}", True


def _refuse(uri: str) -> Any:
    raise ValueError("no schema is fetched")


def _no_constant(name: str) -> Any:
    raise ValueError(name)
