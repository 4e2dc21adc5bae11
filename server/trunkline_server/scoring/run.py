"""Asks models all questions, as any caller would: over the contract, streamed, each for itself."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from trunkline import (
    AsyncClient,
    ResourceExhausted,
    TrunklineError,
    Unauthenticated,
    Unavailable,
    text,
)
from trunkline.v1.catalog_service_pb2 import Model, ModelKind
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_spec_pb2 import CacheMode, CachePolicy, RoutingConstraints
from trunkline_server.scoring.judge import is_right
from trunkline_server.scoring.questions import Question
from trunkline_server.scoring.record import Outcome

IN_FLIGHT: Final = 8
PER_MODEL: Final = 2
MAX_OUTPUT_TOKENS: Final = 1_024  # An answer has ten; models that think need the rest.
ANSWER_S: Final = 60.0
PATIENCE_S: Final = 60.0  # So long a question waits in all for a model that asks to be left alone.
MIN_WAIT_S: Final = 0.1
GIVE_UP: Final = 5  # Failures in a row after which a model is asked nothing more.
MAX_MODELS: Final = 1_000
MAX_PROBLEM_CHARS: Final = 300
# Whatever the messages say, templates add to them.
TEMPLATE_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be asked: one deployment. `key` names it alone, `names` stand for all that share them."""

    key: str
    names: tuple[str, ...]
    input_nanos: int | None = None
    output_nanos: int | None = None

    def worst_cost_usd(
        self, questions: Sequence[Question], repeat: int, output_tokens: int = MAX_OUTPUT_TOKENS
    ) -> float | None:
        """If every answer were as long as it may be; None where a price is not known."""
        if self.input_nanos is None or self.output_nanos is None:
            return None
        # No tokenizer makes more tokens of a text than it has bytes.
        read = sum(len(q.prompt.encode()) + TEMPLATE_TOKENS for q in questions)
        written = output_tokens * len(questions)
        nanos = repeat * (read * self.input_nanos + written * self.output_nanos) / 1_000_000
        return nanos / 1_000_000_000


async def subjects(client: AsyncClient) -> list[Subject]:
    """Every deployment of every model in the gateway's catalog, in its order; at most `MAX_MODELS`."""
    found: dict[str, Subject] = {}
    async for model in client.list_models():
        if model.kind == ModelKind.MODEL_KIND_MODEL:
            for provider in await _providers(client, model):
                subject = _subject(provider, model)
                found.setdefault(subject.key, subject)
        if len(found) >= MAX_MODELS:
            break
    return list(found.values())[:MAX_MODELS]


async def _providers(client: AsyncClient, model: Model) -> list[str]:
    """Who serves it, whoever is listed first. The catalog lists a model once, however many have it."""
    try:
        preview = await client.preview_route("?", model=model.id)
    except (Unauthenticated, Unavailable):
        raise
    except TrunklineError:  # Nobody could be asked as things are: then who is listed.
        return [model.provider]
    named = {c.provider for c in preview.candidates if c.model == model.id}
    return [model.provider, *sorted(named - {model.provider})]


def _subject(provider: str, model: Model) -> Subject:
    return Subject(
        f"{provider}/{model.id}",
        (model.id, *model.aliases),
        model.input_price_nanos_per_million
        if model.HasField("input_price_nanos_per_million")
        else None,
        model.output_price_nanos_per_million
        if model.HasField("output_price_nanos_per_million")
        else None,
    )


Told = TypeVar("Told", bound=Outcome)
Told_co = TypeVar("Told_co", bound=Outcome, covariant=True)


class Examiner(Protocol[Told_co]):
    """Asks a question as some kind of caller would, and makes of the answer what is to be told of it."""

    async def ask(self, model: str, question: Question) -> Told_co:
        """One request.

        Raises:
            TrunklineError.
        """
        ...

    def failed(self, model: str, question: Question, problem: str) -> Told_co:
        """What is told of a question that was asked in vain."""
        ...


class _Lane:
    """What one model is still to be asked, and how it does.

    Attributes:
        left: questions that nobody has taken, or that were given back.
        given_up: set once it has failed too often.
    """

    def __init__(self, model: str, questions: Sequence[Question], repeat: int) -> None:
        self.model = model
        self.left = len(questions) * repeat
        self.given_up = asyncio.Event()
        self._failures_in_a_row = 0
        self._questions: Iterator[Question] = (q for _ in range(repeat) for q in questions)

    def next(self) -> Question | None:
        """The next question; None when there is no more, or no use in asking."""
        question = None if self.given_up.is_set() else next(self._questions, None)
        self.left -= question is not None
        return question

    def ended(self, outcome: Outcome) -> None:
        """Learn how it went."""
        self._failures_in_a_row = self._failures_in_a_row + 1 if outcome.problem else 0
        if self._failures_in_a_row >= GIVE_UP:
            self.given_up.set()


class Asking(Generic[Told]):
    """One run over several models.

    Args:
        models: what each is asked for by.
        advance: told how many questions more are done with.
        in_flight: questions that are asked at once, of all models together.
    """

    def __init__(
        self,
        examiner: Examiner[Told],
        models: Sequence[str],
        questions: Sequence[Question],
        repeat: int,
        advance: Callable[[int], None],
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self.outcomes: list[Told] = []
        self._examiner = examiner
        self._lanes = [_Lane(model, questions, repeat) for model in models]
        self._advance = advance
        self._room = asyncio.Semaphore(in_flight)

    async def run(self) -> list[Told]:
        """All outcomes, in the order in which they came.

        Raises:
            TrunklineError: the gateway is gone, or does not let us in. That is no model's fault.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for lane in self._lanes:
                    for _ in range(PER_MODEL):
                        group.create_task(self._work(lane))
        except* TrunklineError as errors:
            lost = errors.exceptions[0]
        else:
            return self.outcomes
        raise lost

    def unasked(self) -> dict[str, int]:
        """Questions that were not asked, because the model failed too often, by model."""
        return {lane.model: lane.left for lane in self._lanes if lane.left}

    async def _work(self, lane: _Lane) -> None:
        while (question := lane.next()) is not None:
            outcome = await self._ask(lane, question)
            if outcome is None:
                lane.left += 1
            else:
                self.outcomes.append(outcome)
                lane.ended(outcome)
            self._advance(1)

    async def _ask(self, lane: _Lane, question: Question) -> Told | None:
        """None: while it waited, the model was given up."""
        clock = asyncio.get_running_loop().time
        until_s = clock() + PATIENCE_S
        while True:
            try:
                async with self._room:
                    return await self._examiner.ask(lane.model, question)
            except TrunklineError as error:
                if _is_ours(error):
                    raise
                wait_s = _wait_s(error)
                if wait_s is None or clock() + wait_s > until_s:
                    return self._examiner.failed(lane.model, question, _problem(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(lane.given_up.wait(), wait_s)
                return None


class Examination:
    """Asks deployments, each for itself: nobody stands in for anybody, and nothing is tried again."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def ask(self, model: str, question: Question) -> Outcome:
        """Args: model: `Candidate.key`."""
        stream = self._client.stream(
            question.prompt,
            model=model,
            temperature=0.0,
            max_output_tokens=MAX_OUTPUT_TOKENS,
            constraints=RoutingConstraints(max_attempts=1, allowed_models=[model]),
            cache=CachePolicy(mode=CacheMode.CACHE_MODE_BYPASS),
            persona="none",
            timeout_s=ANSWER_S,
        )
        async with stream:
            completion = await stream.completion()
        return Outcome(
            model,
            question.language,
            judged(text(completion), question),
            _first_token_ms(completion),
        )

    def failed(self, model: str, question: Question, problem: str) -> Outcome:
        """No answer."""
        return Outcome(model, question.language, problem=problem)


def judged(answer: str, question: Question) -> bool | None:
    """Is it right? None where there is nothing to judge."""
    return is_right(answer, question.kind, question.accepted) if answer.strip() else None


def _first_token_ms(completion: Completion) -> float | None:
    """Of the attempt that served the answer."""
    for attempt in reversed(completion.attempts):
        if not attempt.HasField("error") and attempt.HasField("time_to_first_token"):
            return attempt.time_to_first_token.ToNanoseconds() / 1_000_000
    return None


BREAKER_OPEN: Final = "UNAVAILABLE"  # The model has failed already, and more than once.


def _is_ours(error: TrunklineError) -> bool:
    """Is it between us and the gateway? Then no model has anything to do with it."""
    unreached = isinstance(error, Unavailable) and not error.request_id
    return unreached or isinstance(error, Unauthenticated)


def _wait_s(error: TrunklineError) -> float | None:
    """How long the model asks to be left alone; None where it has simply failed."""
    if error.retry_after_s is None or not isinstance(error, ResourceExhausted | Unavailable):
        return None
    if error.reason == BREAKER_OPEN:
        return None
    return max(MIN_WAIT_S, error.retry_after_s)


def _problem(error: TrunklineError) -> str:
    message = "".join(c if c.isprintable() else " " for c in error.message)
    return f"{error.reason}: {message}"[:MAX_PROBLEM_CHARS]
