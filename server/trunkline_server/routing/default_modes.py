"""The modes that are there without being configured, over whatever models are enabled, and the operator's own on top.

None limits the length of answers: what a model writes at most differs, and an answer that is cut helps nobody. The
budgets are for loops that run away, so they are wide.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from trunkline.v1.completion_spec_pb2 import ReasoningEffort
from trunkline_server.core.modes import FAST, Mode, Modes

NANOS: Final = 1_000_000_000
MINUTE_S: Final = 60.0
HOUR_S: Final = 3_600.0

DEFAULT_MODES: Final = (
    Mode(
        FAST,
        label="Fast",
        description="Everyday questions and conversation, answered at once.",
        engine="theo-1-flash",
        system_prompt="Answer directly and briefly. Give details only where they are asked for.",
        effort=ReasoningEffort.REASONING_EFFORT_LOW,
        max_tokens=200_000,
        max_s=2 * MINUTE_S,
        cache_s=HOUR_S,
        artifacts=frozenset({"code", "document"}),
        offers_follow_ups=True,
    ),
    Mode(
        "think",
        label="Think",
        description="Questions that take several steps: reasoning, mathematics, plans, comparisons.",
        engine="theo-1-reason",
        system_prompt=(
            "Think the question through, step by step, before you answer. Say what you assume, check your result, and"
            " state the answer clearly."
        ),
        effort=ReasoningEffort.REASONING_EFFORT_HIGH,
        max_tokens=1_000_000,
        max_s=10 * MINUTE_S,
        cache_s=6 * HOUR_S,
        artifacts=frozenset({"code", "document"}),
        offers_follow_ups=True,
    ),
    Mode(
        "code",
        label="Code",
        description="Writing, explaining, reviewing and repairing programs.",
        engine="theo-1-code",
        system_prompt=(
            "You are a careful programmer. Write complete code that runs, in fenced blocks that name their language."
            " Keep to the language, the style and the names of what you are shown. Explain what is not obvious, and"
            " nothing else."
        ),
        effort=ReasoningEffort.REASONING_EFFORT_MEDIUM,
        max_tokens=1_000_000,
        max_s=10 * MINUTE_S,
        cache_s=6 * HOUR_S,
        artifacts=frozenset({"code", "document"}),
        offers_follow_ups=True,
    ),
    Mode(
        "image",
        label="Image",
        description="Pictures, drawings and logos, made from a description.",
        engine="theo-1-create",
        system_prompt="Make the picture that is asked for. Say in one sentence what it shows.",
        max_s=5 * MINUTE_S,
        cache_s=0.0,
        artifacts=frozenset({"image"}),
        is_costly=True,
        modalities=("image",),
    ),
    Mode(
        "video",
        label="Video",
        description="Clips, made from a description. As a job only.",
        system_prompt="Make the clip that is asked for.",
        max_s=HOUR_S,
        cache_s=0.0,
        is_job=True,
        is_costly=True,
        modalities=("video",),
    ),
    Mode(
        "research",
        label="Research",
        description="Reports on a subject, with their sources. As a job only.",
        system_prompt=(
            "You write a report. Rest every claim on what you found, name the source beside it, and say where sources"
            " disagree and what could not be found out."
        ),
        effort=ReasoningEffort.REASONING_EFFORT_HIGH,
        max_hops=20,
        max_tokens=4_000_000,
        max_s=HOUR_S,
        cache_s=0.0,
        artifacts=frozenset({"document"}),
        is_job=True,
        is_costly=True,
    ),
    Mode(
        "roast",
        label="Roast",
        description="Makes fun of what it is shown, for those who asked for it.",
        system_prompt=(
            "Roast what you are shown: witty, exact and short. Aim at the work and at what people chose, never at what"
            " they can't change, and leave one thing that helps."
        ),
        effort=ReasoningEffort.REASONING_EFFORT_LOW,
        max_tokens=200_000,
        max_s=2 * MINUTE_S,
        cache_s=5 * MINUTE_S,  # A joke that is told again is none.
    ),
    Mode(
        "genui",
        label="Generated UI",
        description="User interfaces, built of the components of a library.",
        system_prompt="Answer with a user interface, and with nothing else.",
        effort=ReasoningEffort.REASONING_EFFORT_MEDIUM,
        max_tokens=500_000,
        max_s=5 * MINUTE_S,
        cache_s=HOUR_S,
    ),
)


def modes_of(settings: Iterable[Mapping[str, Any]], *, promotes: bool = False) -> Modes:
    """Those that ship, with the operator's changes and additions, in this order.

    Args:
        settings: values by the names of `[[modes]]`; None: as it ships.
        promotes: may an explicit mode be overridden?

    Raises:
        ValueError: there would be no mode `fast`, which requests have when nobody knows a better one.
    """
    modes = {mode.id: mode for mode in DEFAULT_MODES}
    for values in settings:
        name = values["id"]
        if values["enabled"]:
            modes[name] = replace(modes.get(name, Mode(name, label=name)), **_changes(values))
        else:
            modes.pop(name, None)
    if FAST not in modes:
        raise ValueError(f"{FAST!r} can't be disabled: requests have it when nothing else fits")
    return Modes(modes, promotes)


def _changes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of one mode, by the names of its attributes. Where one of models and route is given, the other one ends."""
    changes = {name: read(values[key]) for key, name, read in FIELDS if values[key] is not None}
    if "models" in changes:
        changes.setdefault("route", "")
    if "route" in changes:
        changes.setdefault("models", ())
    return changes


def _same(value: Any) -> Any:
    return value


def _effort(word: str) -> "ReasoningEffort.ValueType":
    return ReasoningEffort.Value(f"REASONING_EFFORT_{word.upper()}")


def _nanos(usd: float) -> int:
    return round(usd * NANOS)


# A setting, the attribute that it is, and how it is read.
FIELDS: Final = (
    ("models", "models", tuple),
    ("route", "route", _same),
    ("engine", "engine", _same),
    ("label", "label", _same),
    ("description", "description", _same),
    ("system_prompt", "system_prompt", _same),
    ("effort", "effort", _effort),
    ("temperature", "temperature", _same),
    ("max_output_tokens", "max_output_tokens", _same),
    ("max_hops", "max_hops", _same),
    ("max_tokens", "max_tokens", _same),
    ("max_cost_usd", "max_cost_nanos", _nanos),
    ("max_s", "max_s", _same),
    ("tools", "tools", tuple),
    ("cache_s", "cache_s", _same),
    ("artifacts", "artifacts", frozenset),
    ("follow_ups", "offers_follow_ups", _same),
)
