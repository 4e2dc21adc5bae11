"""What each generation of Anthropic's models takes beside messages: thinking, effort, sampling, forced calls."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")  # Lowest first.


@dataclass(frozen=True, slots=True)
class Model:
    """What a model takes. The defaults are those of the newest generation.

    Attributes:
        adaptive: thinks by `adaptive`, with an effort.
        budget: thinks by `enabled`, with `budget_tokens`.
        thinks_unasked: thinks when the request does not say.
        off: the type that turns thinking off; empty where nothing does.
        efforts: the efforts it takes, lowest first.
        sampling: takes temperature, top_p and top_k while it does not think.
        one_sampler: refuses temperature and top_p together.
        forced_tools: can be made to call a tool.
    """

    adaptive: bool = True
    budget: bool = False
    thinks_unasked: bool = True
    off: str = "disabled"
    efforts: tuple[str, ...] = EFFORTS
    sampling: bool = False
    one_sampler: bool = True
    forced_tools: bool = True


# The first row whose pattern is found in the name counts.
# Source:
# https://platform.claude.com/docs/en/build-with-claude/thinking-troubleshooting#rejected-configurations,
# https://platform.claude.com/docs/en/build-with-claude/effort#effort-levels, and the pages "What's
# new" of Opus 5.5, Sonnet 5.5 and Haiku 5.5 there, read 2026-11-21.
MODELS: Final[Sequence[tuple[re.Pattern[str], Model]]] = (
    (re.compile(r"claude-(opus-5[-.]5|(fable|mythos)-5[-.]1)"), Model(off="", forced_tools=False)),
    (re.compile(r"claude-(fable|mythos)-5(?![-.]\d(?!\d))"), Model(off="")),
    (
        re.compile(r"claude-mythos-preview"),
        Model(budget=True, off="", efforts=("low", "medium", "high", "max")),
    ),
    (re.compile(r"claude-sonnet-5[-.]5"), Model(off="between_tools", forced_tools=False)),
    (re.compile(r"claude-(haiku-5[-.]5|(opus|sonnet|haiku)-5(?![-.]\d(?!\d)))"), Model()),
    (re.compile(r"claude-opus-4[-.][78]"), Model(thinks_unasked=False)),
    (
        re.compile(r"claude-(opus|sonnet)-4[-.]6"),
        Model(
            budget=True,
            thinks_unasked=False,
            efforts=("low", "medium", "high", "max"),
            sampling=True,
        ),
    ),
    (
        re.compile(r"claude-opus-4[-.]5"),
        Model(
            adaptive=False,
            budget=True,
            thinks_unasked=False,
            efforts=("low", "medium", "high"),
            sampling=True,
        ),
    ),
    (
        re.compile(r"claude-((opus|sonnet|haiku)-4(?![-.][6-9](?!\d))|3[-.]7)"),
        Model(adaptive=False, budget=True, thinks_unasked=False, efforts=(), sampling=True),
    ),
    (
        re.compile(r"claude-(3|2|instant)"),
        Model(adaptive=False, thinks_unasked=False, off="", efforts=(), sampling=True),
    ),
    # Newer than this table: as strict as the strictest, which costs an option and never the
    # request.
    (re.compile(r"claude"), Model(off="", forced_tools=False)),
    # Other vendors' models behind the same dialect.
    (
        re.compile(r""),
        Model(
            adaptive=False,
            budget=True,
            thinks_unasked=False,
            efforts=(),
            sampling=True,
            one_sampler=False,
        ),
    ),
)


@lru_cache(maxsize=256)
def model_of(name: str) -> Model:
    """The row of `MODELS` for a model's name, with whatever a reseller puts around it."""
    return next(model for pattern, model in MODELS if pattern.search(name))
