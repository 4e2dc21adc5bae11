"""`trunkline score`: what it says, what it asks first, and what it leaves behind."""

import asyncio
import difflib
import json
import secrets
import statistics
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from trunkline import AsyncClient
from trunkline_server.accounts.callers import StaticKey
from trunkline_server.app import build, running
from trunkline_server.config import ConfigError, ServerSettings, Settings, load
from trunkline_server.routing.scoring_run import REGION, ScoringRun
from trunkline_server.scoring.questions import Questions, bundled
from trunkline_server.scoring.record import Outcome, Tally, record, tallies
from trunkline_server.scoring.run import Asking, Examination, Subject, subjects
from trunkline_server.scoring.store import check, store
from trunkline_server.scoring.terminal import (
    announced,
    cost_words,
    failures_line,
    is_agreed,
    progress,
)

DEFAULT_OUTPUT: Final = "scores.json"
MAX_REPEAT: Final = 20
HERE: Final = "127.0.0.1:0"
DRAIN_S: Final = 1.0
# No library asks again by itself: what is asked is counted, and may cost money.
ASK_ONCE: Final = {"grpc.enable_retries": 0}


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """What the command was called with.

    Attributes:
        config: a configuration; None: the usual one.
        target: a running gateway's gRPC address; empty: one of our own.
        models, languages: empty: all.
        yes: asks nothing before it begins.
    """

    config: str | None = None
    target: str = ""
    tls: bool = False
    models: Sequence[str] = ()
    languages: Sequence[str] = ()
    region: str = ""
    repeat: int = 1
    output: str = DEFAULT_OUTPUT
    yes: bool = False


def score(options: ScoreOptions, environment: Mapping[str, str], api_key: str | None) -> int:
    """Run it; returns the exit code.

    Raises:
        ConfigError, TrunklineError.
    """
    import uvloop

    questions, region = _questions(options.languages), options.region.lower()
    problems = []
    if not 1 <= options.repeat <= MAX_REPEAT:
        problems.append(f"--repeat: 1 to {MAX_REPEAT}")
    if not REGION.match(region):
        problems.append(f"--region: {region[:64]!r} is none: letters, digits and - only")
    if problems:
        raise ConfigError(problems)
    check(Path(options.output))

    async def scored() -> int:
        gateway = (
            gateway_at(options.target, api_key, tls=options.tls)
            if options.target
            else _own_gateway(options.config, environment)
        )
        async with gateway as client:
            return await _score(options, questions, region, client)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scored())


def _questions(languages: Sequence[str]) -> Questions:
    questions = bundled()
    unknown = [language for language in languages if language not in questions.languages]
    if unknown:
        known = ", ".join(questions.languages)
        raise ConfigError([f"--languages: no questions in {unknown[0][:32]!r}: there are {known}"])
    return questions.of(languages) if languages else questions


def gateway_at(target: str, api_key: str | None, *, tls: bool) -> AsyncClient:
    """A client of a running gateway, in whose event loop it is made.

    Raises:
        ConfigError: the address is none, or the key can't be sent there.
    """
    try:
        return AsyncClient(target, api_key=api_key, tls=tls, options=ASK_ONCE)
    except ValueError as error:
        raise ConfigError([str(error)]) from error


@asynccontextmanager
async def _own_gateway(
    config: str | None, environment: Mapping[str, str]
) -> AsyncIterator[AsyncClient]:
    """The models of a configuration, behind a gateway in this process that nobody else can use.

    Its ports are free ones of this machine, its key is made for this run, and of the configuration nothing counts but
    who could answer: so one that serves is not disturbed.
    """
    settings, _ = load(config, environment, {})
    # A log in between would tear the progress bar; what fails is told at the end.
    structlog.configure(
        logger_factory=structlog.ReturnLoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger("critical"),
    )
    own = Settings(
        server=ServerSettings(grpc=HERE, http=HERE, drain_s=DRAIN_S),
        limits=settings.limits,
        local=settings.local,
        providers=settings.providers,
        models=settings.models,
    )
    parts = build(own, environment)
    for missing in parts.missing:
        print(f"missing: {missing}")
    if not parts.candidates:
        raise ConfigError(
            ["no model is enabled: set a provider's key, or install the extra `local`"]
        )
    key = secrets.token_urlsafe(32)
    accounts = replace(parts.accounts, keys=(StaticKey("score", key),))
    parts = replace(parts, accounts=accounts)
    async with running(own, parts, structlog.get_logger()) as service:
        try:
            async with AsyncClient(service.grpc_address, api_key=key, options=ASK_ONCE) as client:
                yield client
        finally:
            # Or gRPC's library, whose connections end a little later than they are closed, says that one was cut.
            await service.drain()


async def _score(
    options: ScoreOptions, questions: Questions, region: str, client: AsyncClient
) -> int:
    found = chosen(await subjects(client), options.models)
    total = len(found) * len(questions.questions) * options.repeat
    print(_plan(found, questions, options.repeat), flush=True)
    if sys.stdin.isatty() and not options.yes and not await is_agreed():
        print("nothing was asked")
        return 1
    models = [subject.key for subject in found]
    with progress(total) as advance:
        asking = Asking(Examination(client), models, questions.questions, options.repeat, advance)
        outcomes = await asking.run()
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    run = record(models, outcomes, questions.data_set, time, region)
    _report(models, outcomes, asking.unasked())
    if run is None:
        print("trunkline: no model could be scored, so nothing is stored", file=sys.stderr)
        return 1
    _keep(run, Path(options.output))
    return 0


def chosen(found: Sequence[Subject], names: Sequence[str]) -> list[Subject]:
    """Those that were named, each once, in the catalog's order; all without a name.

    Raises:
        ConfigError: a name is not known.
    """
    if not found:
        raise ConfigError(["the gateway has no models"])
    refuse_unknown(
        "--models", names, {n for subject in found for n in (subject.key, *subject.names)}
    )
    wanted = set(names)
    return [s for s in found if not wanted or not wanted.isdisjoint((s.key, *s.names))]


def refuse_unknown(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Of the names that were given with an option.

    Raises:
        ConfigError: one is not known; it names the nearest one that is.
    """
    known = set(known)
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name[:256], known, 1, 0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            kind = option.removeprefix("--").removesuffix("s")
            raise ConfigError([f"{option}: no {kind} is called {name[:128]!r}{hint}"])


def _plan(chosen: Sequence[Subject], questions: Questions, repeat: int) -> str:
    count = len(questions.questions) * repeat
    cost = cost_words([subject.worst_cost_usd(questions.questions, repeat) for subject in chosen])
    return (
        f"{announced([subject.key for subject in chosen], count)}\n"
        f"languages: {', '.join(questions.languages)}; {cost}"
    )


def _report(models: Sequence[str], outcomes: Sequence[Outcome], unasked: Mapping[str, int]) -> None:
    """A table, the best first, and what went wrong."""
    counted = tallies(models, outcomes)
    width = max(len("model"), *map(len, models))
    print(f"\n{'model':{width}}  {'right':>9}  accuracy  {'95 %':>13}  first token  failed  silent")
    for model, tally in sorted(counted.items(), key=_place):
        if tally.judged:
            low, high = tally.interval
            share = f"{tally.mean:8.3f}  {low:.3f} - {high:.3f}"
        else:
            share = f"{'-':>8}  {'-':>13}"
        right = f"{tally.right} of {tally.judged}"
        seconds = "-"
        if tally.first_token_ms:
            seconds = f"{statistics.median(tally.first_token_ms) / 1_000:.3f} s"
        print(
            f"{model:{width}}  {right:>9}  {share}  {seconds:>11}  {tally.failures:6}  {tally.silent:6}"
        )
    print(flush=True)
    for model, tally in counted.items():
        if tally.failures:
            line = failures_line(model, tally.failures, unasked.get(model, 0), tally.problem)
            print(line, file=sys.stderr)


def _place(row: tuple[str, Tally]) -> tuple[float, str]:
    model, tally = row
    return (-tally.mean if tally.judged else 1.0, model)


def _keep(run: ScoringRun, path: Path) -> None:
    path = store(run, path)
    print(f"stored as {run.id} in {path}. To rank by it, put into the configuration:\n")
    # JSON's strings are TOML's as well.
    print(f"[scoring]\nfile = {json.dumps(str(path.resolve()), ensure_ascii=False)}")
