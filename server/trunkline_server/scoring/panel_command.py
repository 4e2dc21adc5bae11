"""`trunkline panel eval`: does a panel pay? It is asked beside single models, as any caller asks a running service."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trunkline import AsyncClient
from trunkline_server.config import ConfigError
from trunkline_server.scoring.command import MAX_REPEAT, chosen, gateway_at, refuse_unknown
from trunkline_server.scoring.panel_table import (
    EVENTS,
    RESULTS,
    comparisons,
    events,
    line,
    results,
    troubles,
    verdicts,
)
from trunkline_server.scoring.panel_trial import (
    MAX_ROWS,
    Row,
    Trial,
    best_of,
    panels_of,
    rows,
)
from trunkline_server.scoring.plot import check_plot, store_plot
from trunkline_server.scoring.questions import Question, bundled_for_panels, of_file
from trunkline_server.scoring.run import IN_FLIGHT, MAX_OUTPUT_TOKENS, Asking, Subject, subjects
from trunkline_server.scoring.terminal import announced, cost_words, is_agreed, progress

MAX_ANSWER_TOKENS: Final = 1_000_000
MAX_TEMPERATURE: Final = 2.0
MAX_IN_FLIGHT: Final = 64

# Columns, as title and whether it is of numbers, and rows.
Show = Callable[[Sequence[tuple[str, bool]], Sequence[Sequence[str]]], None]


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What the command was called with.

    Attributes:
        target: the service's gRPC address.
        models, panels: by name; empty: chosen by the command.
        questions: a file of JSON lines; empty: the bundled ones.
        limit: so many of the questions, from the first; 0: all.
        concurrency: questions that are asked at once.
        temperature: None: whoever answers decides.
        plot: a file; empty: none.
        yes: asks nothing before it begins.
    """

    target: str
    tls: bool = False
    models: Sequence[str] = ()
    panels: Sequence[str] = ()
    questions: str = ""
    limit: int = 0
    repeat: int = 1
    concurrency: int = IN_FLIGHT
    max_tokens: int = MAX_OUTPUT_TOKENS
    temperature: float | None = None
    json: bool = False
    plot: str = ""
    yes: bool = False


def evaluate(options: EvalOptions, api_key: str | None, show: Show) -> int:
    """Run it; returns the exit code, which does not tell who has won.

    Args:
        show: prints a table.

    Raises:
        ConfigError, TrunklineError.
    """
    import uvloop

    questions = _questions(options)
    if options.plot:
        check_plot(Path(options.plot))

    async def asked() -> list[Row]:
        async with gateway_at(options.target, api_key, tls=options.tls) as client:
            return await _ask(options, questions, client)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(asked())
    if not found:
        return 1
    _tell(found, show, is_json=options.json)
    if options.plot:
        store_plot(Path(options.plot), found, len(questions))
    return 0 if any(row.given for row in found) else 1


def _questions(options: EvalOptions) -> tuple[Question, ...]:
    """Raises: ConfigError: that, or another option, is wrong."""
    problems = []
    if not 1 <= options.repeat <= MAX_REPEAT:
        problems.append(f"--repeat: 1 to {MAX_REPEAT}")
    if options.limit < 0:
        problems.append("--limit: 1 or more")
    if not 1 <= options.concurrency <= MAX_IN_FLIGHT:
        problems.append(f"--concurrency: 1 to {MAX_IN_FLIGHT}")
    if not 1 <= options.max_tokens <= MAX_ANSWER_TOKENS:
        problems.append(f"--max-tokens: 1 to {MAX_ANSWER_TOKENS}")
    if options.temperature is not None and not 0 <= options.temperature <= MAX_TEMPERATURE:
        problems.append(f"--temperature: 0 to {MAX_TEMPERATURE:.0f}")
    if problems:
        raise ConfigError(problems)
    found = of_file(Path(options.questions)) if options.questions else bundled_for_panels()
    return found[: options.limit or None]


async def _ask(
    options: EvalOptions, questions: Sequence[Question], client: AsyncClient
) -> list[Row]:
    """Nothing where nothing is to be asked."""
    panels = await _panels(options.panels, client)
    models = await _models(options.models, panels, client)
    if len(models) + len(panels) > MAX_ROWS:
        raise ConfigError([f"at most {MAX_ROWS} models and panels together: name fewer"])
    keys = [subject.key for subject in models]
    names = [*keys, *panels]
    count = len(questions) * options.repeat
    costs = [
        subject.worst_cost_usd(questions, options.repeat, options.max_tokens) for subject in models
    ]
    print(
        f"{announced(names, count)}\n"
        f"the models alone: {cost_words(costs)}; a panel asks several of them for each question, and costs as much "
        "as all of them",
        file=sys.stderr,
        flush=True,
    )
    if sys.stdin.isatty() and not options.yes and not await is_agreed():
        print("nothing was asked", file=sys.stderr)
        return []
    trial = Trial(client, keys, options.max_tokens, options.temperature)
    with progress(len(names) * count) as advance:
        asking = Asking(trial, names, questions, options.repeat, advance, options.concurrency)
        answers = await asking.run()
    return rows(keys, panels, answers, asking.unasked())


async def _panels(names: Sequence[str], client: AsyncClient) -> list[str]:
    """Those that were named, each once; all without a name.

    Raises:
        ConfigError: there is none, or none of that name.
    """
    found = await panels_of(client)
    refuse_unknown("--panels", names, found)
    if not found:
        raise ConfigError(["the gateway has no panels"])
    return list(dict.fromkeys(names)) or found


async def _models(
    names: Sequence[str], panels: Sequence[str], client: AsyncClient
) -> list[Subject]:
    """Those that were named; without a name the best ones for these panels. Says how many are left out."""
    found = await subjects(client)
    if names or not found:
        return chosen(found, names)
    best = await best_of(client, found, panels)
    if len(best) < len(found):
        left = len(found) - len(best)
        print(f"{left} more models are left out: --models names others", file=sys.stderr)
    return best


def _tell(found: Sequence[Row], show: Show, *, is_json: bool) -> None:
    compared = comparisons(found)
    if is_json:
        for row in found:
            print(line(row, compared.get(row.name)))
    else:
        show(RESULTS, [results(row) for row in found])
        print()
        show(EVENTS, [events(row) for row in found])
        print()
        for paragraph in verdicts(found, compared):
            print(paragraph)
    sys.stdout.flush()
    for trouble in troubles(found):
        print(trouble, file=sys.stderr)
