"""Two linear classifiers of modes: one over the words of a text, one over the direction in which a small model sees it.

Both are rows of numbers in `mode_weights.json`, which `make mode-weights` learns from prompts in the repository. They
tell of the modes that a text can be told by; the others have rules only. What they say are probabilities: the
temperatures were found on sources of prompts that were left out of the training for it.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from operator import mul
from typing import Final

WEIGHTS: Final = "mode_weights.json"
WORDS_SHARE: Final = (
    0.5  # Of what the words say, where the model has spoken: it generalises better.
)
SCALE: Final = 1_000  # Weights are kept as whole thousandths.


@dataclass(frozen=True, slots=True)
class Heads:
    """As learnt.

    Attributes:
        modes: what they tell apart; all rows are in this order.
        bias, weights: of the words, by feature.
        temperature: divides what the words say, where they speak alone.
        embedding_bias, embedding_rows: of the model; a row of as many numbers as it has dimensions for each mode.
        joint_temperature: divides the sum of what both say.
    """

    modes: tuple[str, ...]
    bias: tuple[float, ...]
    weights: Mapping[str, Sequence[int]]
    temperature: float
    embedding_bias: tuple[float, ...]
    embedding_rows: tuple[tuple[float, ...], ...]
    joint_temperature: float

    def of_words(self, features: Iterable[str]) -> list[float]:
        """What the words say for each mode; not yet probabilities."""
        weights = self.weights
        rows = [weights[feature] for feature in features if feature in weights]
        if not rows:
            return list(self.bias)
        # A long text shows more features, but is not surer for that.
        norm = 1 / (SCALE * math.sqrt(len(rows)))
        return [
            bias + norm * sum(column)
            for bias, column in zip(self.bias, zip(*rows, strict=True), strict=True)
        ]

    def of_vector(self, vector: Sequence[float]) -> list[float]:
        """What the model says for each mode; not yet probabilities."""
        return [
            bias + sum(map(mul, row, vector))
            for bias, row in zip(self.embedding_bias, self.embedding_rows, strict=True)
        ]

    def joint(self, words: Sequence[float], model: Sequence[float]) -> list[float]:
        """What both say together."""
        return [WORDS_SHARE * a + b for a, b in zip(words, model, strict=True)]

    def probabilities(
        self, words: Sequence[float], model: Sequence[float] | None
    ) -> dict[str, float]:
        """Of all modes that they tell apart; 1 in sum."""
        logits, temperature = words, self.temperature
        if model is not None:
            logits, temperature = self.joint(words, model), self.joint_temperature
        highest = max(logits)
        powers = [math.exp((logit - highest) / temperature) for logit in logits]
        total = sum(powers)
        return {mode: power / total for mode, power in zip(self.modes, powers, strict=True)}


def load_heads() -> Heads:
    """Those that ship."""
    return heads_from_json(files(__package__).joinpath(WEIGHTS).read_text(encoding="utf-8"))


def heads_from_json(text: str) -> Heads:
    """As `scripts/mode_weights.py` writes them."""
    found = json.loads(text)
    words, embedding = found["words"], found["embedding"]
    return Heads(
        modes=tuple(found["modes"]),
        bias=_row(words["bias"]),
        weights={name: tuple(row) for name, row in words["weights"].items()},
        temperature=words["temperature"],
        embedding_bias=_row(embedding["bias"]),
        embedding_rows=tuple(map(_row, embedding["rows"])),
        joint_temperature=embedding["temperature"],
    )


def _row(numbers: Sequence[int]) -> tuple[float, ...]:
    return tuple(number / SCALE for number in numbers)
