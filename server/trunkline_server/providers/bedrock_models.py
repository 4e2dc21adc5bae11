"""What the vendors behind Bedrock's one dialect take in ways of their own: reasoning and top_k.

The dialect has an effort of its own, but older models are told in `additionalModelRequestFields`, in the words of their
vendor. Claude has a table to itself, `anthropic_models`.

Sources, read 2026-11-22: below https://docs.aws.amazon.com the pages
/nova/latest/nova2-userguide/using-converse-api.html, /nova/latest/userguide/complete-request-schema.html and
/bedrock/latest/userguide/model-parameters.html with those of the vendors below it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")  # Of the dialect, lowest first.
FEWER_EFFORTS: Final = EFFORTS[:3]
# Groups of regions that stand before the vendor in the id of an inference profile.
GROUPS: Final = frozenset({"us", "us-gov", "eu", "apac", "jp", "au", "ca", "sa", "global"})


class Asks(Enum):
    """Where a model is told how much to think."""

    NOWHERE = auto()
    EFFORT = auto()  # `outputConfig.effort`.
    CLAUDE = auto()  # That, and a type of thinking.
    NOVA = auto()  # `reasoningConfig`.
    FIELD = auto()  # `reasoning_effort`, as OpenAI has it.


@dataclass(frozen=True, slots=True)
class Model:
    """What a model takes.

    Attributes:
        efforts: lowest first.
        top_k: where its top_k stands among the additional fields; empty where it has none.
    """

    asks: Asks = Asks.EFFORT
    efforts: tuple[str, ...] = EFFORTS
    top_k: tuple[str, ...] = ("top_k",)


# The first row whose pattern is found in the id counts.
MODELS: Final[Sequence[tuple[re.Pattern[str], Model]]] = (
    (re.compile(r"claude"), Model(Asks.CLAUDE)),
    (
        re.compile(r"nova-(2|premier-2)"),
        Model(Asks.NOVA, FEWER_EFFORTS, ("inferenceConfig", "topK")),
    ),
    (re.compile(r"nova-"), Model(Asks.NOWHERE, (), ("inferenceConfig", "topK"))),
    (re.compile(r"gpt-oss"), Model(Asks.FIELD, FEWER_EFFORTS, ())),
    (re.compile(r"cohere\."), Model(Asks.NOWHERE, (), ("k",))),
    (re.compile(r"mistral\."), Model(Asks.NOWHERE, ())),
    (re.compile(r"(meta|ai21)\.|titan-"), Model(Asks.NOWHERE, (), ())),
    # Newer than this table, or behind the ARN of a profile, which does not say.
    (re.compile(r""), Model()),
)


@lru_cache(maxsize=256)
def row_of(name: str) -> Model:
    """The row of `MODELS` for a model's id or ARN."""
    return next(model for pattern, model in MODELS if pattern.search(name))


def vendor_of(name: str) -> str:
    """Who made a model, by its id or ARN: `anthropic` of `us.anthropic.claude-opus-4-8`."""
    first, _, rest = name.rpartition("/")[2].partition(".")
    return rest.partition(".")[0] if first in GROUPS else first
