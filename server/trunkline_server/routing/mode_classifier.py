"""What kind of work a request is: the `Classifier` port.

Rules first, for requests that say it themselves; then a linear head over words; then, where that is not sure, a second
one over the vector of a small model, if there is one. Where nobody is sure it is `fast`: the mistake that costs least.
A mode that costs money is chosen when that is all but certain, and otherwise the best of the others.

A request with tools is not given a mode that makes a picture, a clip or a report of it, because its tools would be of
no use there; one with media is not taken for the wish to have a picture made, unless it says so.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, Protocol

from trunkline_server.core.modes import FAST, ModeChoice, ModeQuestion
from trunkline_server.routing.mode_features import features, glance, is_latin
from trunkline_server.routing.mode_heads import Heads
from trunkline_server.routing.mode_rules import ruling

SURE: Final = 0.6  # Where the best probability is lower, the next head is asked,
CLEAR: Final = 0.2  # and where the second best is nearer than that.
ENOUGH: Final = 0.5  # Below that it is nobody's guess.
CERTAIN: Final = 0.8  # For modes that cost money.
VECTOR_WAIT_S: Final = 0.1

RULES: Final = "rules"
LINEAR: Final = "linear"
EMBEDDING: Final = "embedding"
DEFAULT: Final = "default"

Ranked = list[tuple[str, float]]


class Vector(Protocol):
    """Of a text, as numpy has it."""

    def tolist(self) -> Any:
        """Its numbers."""
        ...


class Embedder(Protocol):
    """A model that tells where a text points, by what kind of text it is."""

    async def glimpse(self, text: str, wait_s: float) -> Vector | None:
        """None where it is not known, or not in time. Never raises."""
        ...


class ModeClassifier:
    """Keeps nothing of what it is asked.

    Args:
        costly: modes that need to be all but certain.
        embedder: None for none.
    """

    def __init__(self, heads: Heads, costly: frozenset[str], embedder: Embedder | None) -> None:
        self._heads = heads
        self._costly = costly
        self._embedder = embedder

    async def classify(self, question: ModeQuestion) -> ModeChoice:
        """Never raises, and takes no longer than a tenth of a second."""
        text = glance(question.text)
        found = ruling(question, text)
        if found is not None:
            return ModeChoice(found.mode, found.confidence, RULES)
        words = self._heads.of_words(features(text))
        among = self._among(question, text)
        ranked = self._ranked(among, words, None)
        if self._embedder is None or self._is_settled(ranked):
            return self._choice(ranked, LINEAR)
        vector = await self._embedder.glimpse(text, VECTOR_WAIT_S)
        if vector is None:
            return self._choice(ranked, LINEAR)
        model = self._heads.of_vector(vector.tolist())
        return self._choice(self._ranked(among, words, model), EMBEDDING)

    def _among(self, question: ModeQuestion, text: str) -> frozenset[str]:
        """Modes that a guess may give the request."""
        # Of another script the heads see the shape alone.
        if question.has_tools or question.media or not is_latin(text):
            return question.modes - self._costly
        return question.modes

    def _ranked(
        self, among: frozenset[str], words: Sequence[float], model: Sequence[float] | None
    ) -> Ranked:
        """Best first. What is not among them keeps its share of probability."""
        found = self._heads.probabilities(words, model)
        return sorted(
            ((mode, p) for mode, p in found.items() if mode in among),
            key=itemgetter(1),
            reverse=True,
        )

    def _is_settled(self, ranked: Ranked) -> bool:
        if not ranked:
            return True
        (mode, best), second = ranked[0], ranked[1][1] if len(ranked) > 1 else 0.0
        return best >= self._least(mode, SURE) and best - second >= CLEAR

    def _least(self, mode: str, usual: float) -> float:
        return CERTAIN if mode in self._costly else usual

    def _choice(self, ranked: Ranked, tier: str) -> ModeChoice:
        chosen = next((mode for mode, p in ranked if p >= self._least(mode, ENOUGH)), None)
        if chosen is None:
            chosen, tier = FAST, DEFAULT
        others = tuple((mode, p) for mode, p in ranked if mode != chosen)
        return ModeChoice(chosen, dict(ranked).get(chosen, 0.0), tier, others)
