"""Accuracy by candidate, language and region, from one scoring run.

A cell with few answers says little, so each is shrunk towards its parent: a language and region towards the language, a
language towards all together, and that towards the mean of all candidates; each parent counts as PSEUDO_COUNT answers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from trunkline_server.core.candidate import Candidate
from trunkline_server.routing.scoring_run import Cell, ScoringRun

PRIOR: Final = 0.5  # Of what nobody has measured.
PSEUDO_COUNT: Final = 20
GLOBAL: Final = "global"
# A latency score from the configuration stands for a time to first token: these for 0 and 1, by their logarithm.
SLOWEST_S: Final = 4.0
FASTEST_S: Final = 0.25

# What deployments put around the name that a model has everywhere.
_PREFIX: Final = re.compile(
    r"^((us|eu|apac|jp|au|global)\.)?((ai21|amazon|anthropic|cohere|meta|mistral|openai|qwen)\.)?"
)
_SUFFIX: Final = re.compile(
    r"(-v\d+(:\d+)?|-\d:\d|:[a-z]+|[-@]20\d{6}|-20\d\d-\d\d-\d\d|-\d\d-20\d\d|-[01]\d[0-3]\d|-latest"
    r"|-preview(-\d\d-\d\d)?)$"
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A scoring run's attempts at one candidate: times of the answers that came, and how many failed."""

    latencies_s: tuple[float, ...]
    failures: int = 0


class Scores:
    """Of these candidates. Immutable.

    Attributes:
        run_id: of the scoring run; empty where it says nothing about any of them.
        measured: by `Candidate.key`, of those whose times are known.
        knows_languages: does the language of a request make a difference?
    """

    def __init__(self, run: ScoringRun | None, candidates: Sequence[Candidate]) -> None:
        cells = _cells_by_name(run)
        times = _times_by_name(run)
        self._cells: dict[str, dict[tuple[str, str], Cell]] = {}
        self._given: dict[str, float] = {}
        self.measured: dict[str, Measured] = {}
        for candidate in candidates:
            names = _names(candidate)
            found = next((cells[name] for name in names if name in cells), None)
            if "accuracy" in candidate.scores:
                self._given[candidate.key] = candidate.scores["accuracy"]
            elif found is not None:
                self._cells[candidate.key] = found
            timed = next((times[name] for name in names if name in times), None)
            if "latency" in candidate.scores:
                timed = Measured((_latency_s(candidate.scores["latency"]),))
            if timed is not None:
                self.measured[candidate.key] = timed
        is_of_use = bool(self._cells) or any(
            c.key in self.measured for c in candidates if "latency" not in c.scores
        )
        self.run_id = run.id if run is not None and is_of_use else ""
        self._everywhere = {key: _everywhere(found) for key, found in self._cells.items()}
        means = [mean for mean, _ in self._everywhere.values()]
        self._prior = fmean(means) if means else PRIOR
        places = {place for found in self._cells.values() for place in found}
        self._languages = {language for language, _ in places if language}
        self._regions = {region for _, region in places if region}
        self.knows_languages = bool(self._languages)

    def cell(self, language: str, region: str) -> tuple[str, str]:
        """What tells requests apart: language and region, each empty where it makes no difference."""
        language = language.partition("-")[0].lower()
        region = region.lower()
        return (
            language if language in self._languages else "",
            region if region in self._regions else "",
        )

    def accuracy(self, candidate: Candidate, cell: tuple[str, str]) -> float:
        """0 to 1: as the configuration says, else as measured, else `PRIOR`."""
        given = self._given.get(candidate.key)
        if given is not None:
            return given
        found = self._cells.get(candidate.key)
        if found is None:
            return PRIOR
        language, region = cell
        mean, n = self._everywhere[candidate.key]
        mean = _shrunk(mean, n, self._prior)
        places = [(language, "")] if language else []
        places += [(language, region)] if region else []
        for place in places:
            if (measured := found.get(place)) is not None:
                mean = _shrunk(measured.mean, measured.n, mean)
        return mean


def bare_name(model: str) -> str:
    """A model's name without what a provider or a release puts around it."""
    name = model.lower().rpartition("/")[2]
    name = _PREFIX.sub("", name)
    while (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
    return name.replace(".", "-")


def _names(candidate: Candidate) -> tuple[str, ...]:
    """What a run may call a candidate, the closest name first."""
    upstream = f"{candidate.provider}/{candidate.model}"
    bare = [f"~{bare_name(name)}" for name in (candidate.model, candidate.id)]
    return (candidate.key, upstream, candidate.id, *candidate.aliases, candidate.model, *bare)


def _cells_by_name(run: ScoringRun | None) -> Mapping[str, dict[tuple[str, str], Cell]]:
    """Under the full names, and behind a tilde under the bare ones, where the first of several counts."""
    found: dict[str, dict[tuple[str, str], Cell]] = {}
    for cell in run.cells if run is not None else ():
        found.setdefault(cell.model, {})[cell.language, cell.region] = cell
    for name, cells in list(found.items()):
        found.setdefault(f"~{bare_name(name)}", cells)
    return found


def _times_by_name(run: ScoringRun | None) -> Mapping[str, Measured]:
    found: dict[str, Measured] = {}
    for timing in run.timings if run is not None else ():
        times_s = tuple(ms / 1_000 for ms in timing.first_token_ms)
        found[timing.model] = Measured(times_s, timing.failures)
    for name, times in list(found.items()):
        found.setdefault(f"~{bare_name(name)}", times)
    return found


def _everywhere(cells: Mapping[tuple[str, str], Cell]) -> tuple[float, int | None]:
    """All languages and regions together: as measured, else pooled from what was."""
    whole = cells.get(("", ""))
    if whole is not None:
        return whole.mean, whole.n
    counts = [cell.n or PSEUDO_COUNT for cell in cells.values()]
    total = sum(cell.mean * n for cell, n in zip(cells.values(), counts, strict=True))
    return total / sum(counts), sum(counts)


def _shrunk(mean: float, n: int | None, parent: float) -> float:
    if n is None:
        return mean
    return (n * mean + PSEUDO_COUNT * parent) / (n + PSEUDO_COUNT)


def _latency_s(score: float) -> float:
    return float(SLOWEST_S * (FASTEST_S / SLOWEST_S) ** score)
