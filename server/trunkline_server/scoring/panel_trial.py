"""Models and panels are asked the same, as any caller asks them, and what came of it is counted."""

import asyncio
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from trunkline import AsyncClient, TrunklineError, Unauthenticated, Unavailable, text
from trunkline.v1.catalog_service_pb2 import ModelKind
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_spec_pb2 import CacheMode, CachePolicy, RoutingConstraints
from trunkline_server.scoring.questions import Question
from trunkline_server.scoring.record import Outcome, wilson
from trunkline_server.scoring.run import MAX_MODELS, Subject, judged

DEFAULT_MODELS: Final = 6  # So many are asked where none is named.
MAX_ROWS: Final = 64  # Models and panels of one run.
ANSWER_S: Final = 180.0  # A panel's own deadlines are shorter.
HIGH: Final = 0.95  # The quantile that is told of the times.


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Outcome):
    """What came of one question. All but `question` says nothing where there was a problem.

    Attributes:
        question: its id.
        seconds: until the answer was whole, as its caller met it. `first_token_ms` likewise.
        cost_nanos: None where it is not known.
        is_estimated: the cost, or the tokens.
    """

    question: str
    seconds: float = 0.0
    cost_nanos: int | None = None
    is_estimated: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    is_degraded: bool = False
    stopped_early: bool = False
    is_escalated: bool = False


class Trial:
    """Asks models, each for itself, and panels.

    Args:
        models: `Candidate.key` of those that nobody may stand in for. Whatever else is asked for is a panel.
        temperature: None: whoever answers decides.
    """

    def __init__(
        self,
        client: AsyncClient,
        models: Iterable[str],
        max_output_tokens: int,
        temperature: float | None,
    ) -> None:
        self._client = client
        self._models = frozenset(models)
        self._max_output_tokens = max_output_tokens
        self._temperature = temperature

    async def ask(self, model: str, question: Question) -> Answer:
        """One request, streamed. It is tried again and escalated as the gateway thinks right."""
        clock = asyncio.get_running_loop().time
        alone = RoutingConstraints(allowed_models=[model]) if model in self._models else None
        began_s = clock()
        first_s: float | None = None
        stream = self._client.stream(
            question.prompt,
            model=model,
            temperature=self._temperature,
            max_output_tokens=self._max_output_tokens,
            constraints=alone,
            cache=CachePolicy(mode=CacheMode.CACHE_MODE_BYPASS),
            persona="none",
            timeout_s=ANSWER_S,
        )
        async with stream:
            async for event in stream:
                if first_s is None and event.text_delta.text:
                    first_s = clock() - began_s
            completion = await stream.completion()
        return _answer(model, question, completion, clock() - began_s, first_s)

    def failed(self, model: str, question: Question, problem: str) -> Answer:
        """No answer."""
        return Answer(model, question.language, problem=problem, question=question.id)


def _answer(
    model: str, question: Question, completion: Completion, seconds: float, first_s: float | None
) -> Answer:
    usage, panel = completion.usage, completion.panel
    return Answer(
        model,
        question.language,
        judged(text(completion), question),
        None if first_s is None else first_s * 1_000,
        question=question.id,
        seconds=seconds,
        cost_nanos=usage.cost.amount_nanos if usage.HasField("cost") else None,
        is_estimated=usage.estimated or usage.cost.estimated,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        is_degraded=panel.degraded,
        stopped_early=panel.stopped_early,
        is_escalated=panel.escalated,
    )


@dataclass(frozen=True)
class Row:
    """All answers of one model or panel.

    Attributes:
        answers: one for each question that it was asked, as often as it was asked it; at least one.
        unasked: questions that it was not asked any more, because it failed too often.
    """

    name: str
    is_panel: bool
    answers: Sequence[Answer]
    unasked: int = 0

    @property
    def given(self) -> list[Answer]:
        """Those that came, right or wrong."""
        return [answer for answer in self.answers if not answer.problem]

    @property
    def is_judged(self) -> bool:
        """Was it asked everything, and did it answer anything?"""
        return not self.unasked and bool(self.given)

    @property
    def right(self) -> int:
        """How many were right."""
        return sum(answer.is_right is True for answer in self.answers)

    @property
    def accuracy(self) -> float:
        """The share of questions with a right answer: who gets none has not got a right one."""
        return self.right / len(self.answers)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the accuracy, 95 %. Answers to one question are not independent, so each question counts once."""
        questions = len({answer.question for answer in self.answers})
        return wilson(self.accuracy * questions, questions)

    @property
    def right_by_question(self) -> Mapping[str, int]:
        """How often each was answered rightly."""
        found = dict.fromkeys((answer.question for answer in self.answers), 0)
        for answer in self.answers:
            found[answer.question] += answer.is_right is True
        return found

    @property
    def mean_s(self) -> float | None:
        """Of the answers that came."""
        return statistics.fmean(a.seconds for a in self.given) if self.given else None

    @property
    def high_s(self) -> float | None:
        """Of a hundred answers, five took longer."""
        times = sorted(answer.seconds for answer in self.given)
        return times[math.ceil(HIGH * len(times)) - 1] if times else None

    @property
    def first_token_s(self) -> float | None:
        """The median. None: there was no text."""
        times = [a.first_token_ms for a in self.given if a.first_token_ms is not None]
        return statistics.median(times) / 1_000 if times else None

    @property
    def cost_nanos(self) -> float | None:
        """Of an answer. None unless that of each answer is known: the rest may be others than these."""
        costs = [answer.cost_nanos for answer in self.given]
        known = [cost for cost in costs if cost is not None]
        return statistics.fmean(known) if known and len(known) == len(costs) else None

    @property
    def without_cost(self) -> int:
        """Answers whose cost is not known."""
        return sum(answer.cost_nanos is None for answer in self.given)

    @property
    def is_estimated(self) -> bool:
        """Are tokens or costs of any answer?"""
        return any(answer.is_estimated for answer in self.given)

    def tokens(self, *, output: bool) -> float | None:
        """Of an answer, on average."""
        counts = [a.output_tokens if output else a.input_tokens for a in self.given]
        return statistics.fmean(counts) if counts else None

    def count(self, attribute: str) -> int:
        """Answers of which this is true."""
        return sum(bool(getattr(answer, attribute)) for answer in self.answers)

    @property
    def silent(self) -> int:
        """Answers without a word."""
        return sum(answer.is_right is None for answer in self.given)


def rows(
    models: Sequence[str],
    panels: Sequence[str],
    answers: Iterable[Answer],
    unasked: Mapping[str, int],
) -> list[Row]:
    """Of each that was asked, the most accurate first."""
    found: dict[str, list[Answer]] = {name: [] for name in (*models, *panels)}
    for answer in answers:
        found[answer.model].append(answer)
    told = [
        Row(name, name in panels, told, unasked.get(name, 0))
        for name, told in found.items()
        if told
    ]
    return sorted(told, key=lambda row: (-row.accuracy, row.name))


# who is asked


async def panels_of(client: AsyncClient) -> list[str]:
    """Every panel in the gateway's catalog, in its order; at most `MAX_MODELS`."""
    found: list[str] = []
    async for model in client.list_models():
        if model.kind == ModelKind.MODEL_KIND_PANEL:
            found.append(model.id)
        if len(found) >= MAX_MODELS:
            break
    return found


async def best_of(
    client: AsyncClient, found: Sequence[Subject], panels: Sequence[str]
) -> list[Subject]:
    """Those that sit on the panels, or would first; then whoever is left. At most `DEFAULT_MODELS`."""
    ranked = [await _ranked(client, panel) for panel in panels]
    longest = max(map(len, ranked), default=0)
    keys = [keys[place] for place in range(longest) for keys in ranked if place < len(keys)]
    subjects = {subject.key: subject for subject in found}
    ordered = dict.fromkeys([*(key for key in keys if key in subjects), *subjects])
    return [subjects[key] for key in ordered][:DEFAULT_MODELS]


async def _ranked(client: AsyncClient, panel: str) -> list[str]:
    """Who could answer, best first. Nobody where the panel can't be asked: then that is told later."""
    try:
        preview = await client.preview_route("?", model=panel)
    except (Unauthenticated, Unavailable):
        raise
    except TrunklineError:
        return []
    return [f"{c.provider}/{c.model}" for c in preview.candidates if c.eligible]
