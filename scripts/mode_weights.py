"""Learns the heads of the mode classifier, and measures the whole of it.

    python scripts/mode_weights.py            writes mode_weights.json and the tables in docs/modes.md
    python scripts/mode_weights.py --measure  measures what is there, and writes the tables only

Learns from the prompts in scripts/mode_prompts.txt, and from 20 of each source in tests/data/modes that sources.toml
calls seen; measures on the rest of those, and on sources of which the training saw nothing. The same prompts give the
same weights. Beside bench/ and not in it, because what it makes is shipped.
"""

import argparse
import asyncio
import json
import math
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trunkline_server.core.modes import ModeChoice, ModeQuestion
from trunkline_server.embedding.glimpse import Glimpse
from trunkline_server.embedding.model import Model
from trunkline_server.routing.default_modes import DEFAULT_MODES
from trunkline_server.routing.mode_classifier import (
    DEFAULT,
    EMBEDDING,
    LINEAR,
    RULES,
    ModeClassifier,
)
from trunkline_server.routing.mode_features import features, glance
from trunkline_server.routing.mode_heads import SCALE, WEIGHTS, Heads, heads_from_json, load_heads

ROOT: Final = Path(__file__).parent.parent
OWN_PROMPTS: Final = ROOT / "scripts" / "mode_prompts.txt"
SOURCES: Final = ROOT / "tests" / "data" / "modes"
OUTPUT: Final = ROOT / "server" / "trunkline_server" / "routing" / WEIGHTS
PAGE: Final = ROOT / "docs" / "modes.md"
BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"

TOLD: Final = ("code", "fast", "image", "think")  # By a text; the other modes have rules only.
SEEN_OF_A_SOURCE: Final = 20
MIN_PROMPTS: Final = 2  # A feature of fewer says more about the prompt than about the mode.
WORDS_PENALTY: Final = 1e-5
EMBEDDING_PENALTY: Final = 3e-5
STEPS: Final = 400
STEP: Final = 0.02
FOLDS: Final = 8
TEMPERATURES: Final = np.geomspace(0.2, 5, 60)
BINS: Final = 10
TRIES: Final = 3
RAW: Final = argparse.RawDescriptionHelpFormatter

Matrix = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, and what a person would say that it is."""

    source: str
    mode: str
    text: str


# Prompts


def own_prompts() -> list[Prompt]:
    """Those that were written for the training."""
    found, mode = [], ""
    for line in OWN_PROMPTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("[") and line.endswith("]"):
            mode = line[1:-1]
        elif line and not line.startswith("# "):
            found.append(Prompt("own", mode, line.replace(r"\n", "\n")))
    return found


def prompts() -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
    """For the training; of the sources of which it saw some; of those of which it saw none."""
    training, seen, unseen = own_prompts(), [], []
    sources = tomllib.loads((SOURCES / "sources.toml").read_text(encoding="utf-8"))
    for name, source in sources.items():
        lines = (SOURCES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [Prompt(name, **json.loads(line)) for line in lines]
        if not source["seen"]:
            unseen += rows
            continue
        taken = {n * len(rows) // SEEN_OF_A_SOURCE for n in range(SEEN_OF_A_SOURCE)}
        training += [row for n, row in enumerate(rows) if n in taken]
        seen += [row for n, row in enumerate(rows) if n not in taken]
    # Some sources ask the same thing twice, but for a capital letter.
    known = {row.text.lower() for row in training}
    return training, [row for row in seen if row.text.lower() not in known], unseen


# Learning


def learnt(x: Matrix, y: Numbers, penalty: float) -> tuple[Matrix, Matrix]:
    """Rows of weights and the bias of a logistic regression, in which all modes weigh the same."""
    weight = 1 / np.bincount(y, minlength=len(TOLD))[y]
    weight /= weight.sum()
    x = np.hstack([x, np.ones((len(x), 1))])
    right = np.eye(len(TOLD))[y]
    w, mean, square = (np.zeros((x.shape[1], len(TOLD))) for _ in range(3))
    penalties = np.full((x.shape[1], 1), penalty)
    penalties[-1] = 0
    for step in range(1, STEPS + 1):
        gradient = x.T @ ((softmax(x @ w) - right) * weight[:, None]) + penalties * w
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        w -= STEP * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return w[:-1], w[-1]


def softmax(logits: Matrix) -> Matrix:
    """Rows to probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Table:
    """Prompts as numbers."""

    found: list[set[str]]
    vectors: Matrix
    modes: Numbers

    def part(self, rows: Numbers) -> "Table":
        """Some of them."""
        return Table([self.found[n] for n in rows], self.vectors[rows], self.modes[rows])


def table(rows: Sequence[Prompt], model: Model) -> Table:
    """All that is learnt from."""
    vectors = np.zeros((len(rows), 384))
    for n, row in enumerate(rows):
        vector = model.vector(glance(row.text))
        if vector is not None:
            vectors[n] = vector
    return Table(
        [features(glance(row.text)) for row in rows],
        vectors,
        np.array([TOLD.index(row.mode) for row in rows]),
    )


def heads(rows: Table, temperatures: tuple[float, float]) -> Heads:
    """Learnt from all of them."""
    counts = Counter(feature for found in rows.found for feature in found)
    known = {f: n for n, f in enumerate(sorted(f for f, c in counts.items() if c >= MIN_PROMPTS))}
    x = np.zeros((len(rows.found), len(known)))
    for n, found in enumerate(rows.found):
        columns = [known[feature] for feature in found if feature in known]
        x[n, columns] = 1 / math.sqrt(max(1, len(columns)))
    w, bias = learnt(x, rows.modes, WORDS_PENALTY)
    v, embedding_bias = learnt(rows.vectors, rows.modes, EMBEDDING_PENALTY)
    return heads_from_json(
        as_json(
            {
                "modes": TOLD,
                "words": {
                    "temperature": temperatures[0],
                    "bias": whole(bias),
                    "weights": {f: whole(w[n]) for f, n in known.items()},
                },
                "embedding": {
                    "temperature": temperatures[1],
                    "bias": whole(embedding_bias),
                    "rows": [whole(row) for row in v.T],
                },
            }
        )
    )


def whole(numbers: Iterable[float]) -> list[int]:
    """In thousandths."""
    return [round(float(number) * SCALE) for number in numbers]


def temperatures(rows: Table, sources: Sequence[str]) -> tuple[float, float]:
    """Those at which what is said of sources that were left out is as sure as it is right."""
    names = sorted(set(sources) - {"own"})
    folds = {name: n % FOLDS for n, name in enumerate(names)}
    fold = np.array([folds.get(source, n % FOLDS) for n, source in enumerate(sources)])
    words, joint = np.zeros((len(fold), len(TOLD))), np.zeros((len(fold), len(TOLD)))
    for left_out in range(FOLDS):
        made = heads(rows.part(np.flatnonzero(fold != left_out)), (1.0, 1.0))
        for n in np.flatnonzero(fold == left_out):
            words[n] = made.of_words(rows.found[n])
            joint[n] = made.joint(words[n].tolist(), made.of_vector(rows.vectors[n].tolist()))
    return temperature(words, rows.modes), temperature(joint, rows.modes)


def temperature(logits: Matrix, modes: Numbers) -> float:
    """With the least surprise."""
    right = np.arange(len(modes)), modes
    surprise = [-np.log(softmax(logits / t)[right] + 1e-12).mean() for t in TEMPERATURES]
    return round(float(TEMPERATURES[int(np.argmin(surprise))]), 3)


def as_json(value: object) -> str:
    """Without blanks: most of it is numbers."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def written(made: Heads) -> str:
    """Heads as the server reads them."""
    return as_json(
        {
            "modes": made.modes,
            "words": {
                "temperature": made.temperature,
                "bias": whole(made.bias),
                "weights": made.weights,
            },
            "embedding": {
                "temperature": made.joint_temperature,
                "bias": whole(made.embedding_bias),
                "rows": [whole(row) for row in made.embedding_rows],
            },
        }
    )


# Measuring


class Direct:
    """The model without its thread, so that what it costs can be told."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def glimpse(self, text: str, wait_s: float) -> NDArray[np.float32] | None:
        """Asked at once."""
        return self._model.vector(text)


@dataclass(frozen=True, slots=True)
class Result:
    """One prompt, and what became of it."""

    prompt: Prompt
    choice: ModeChoice

    @property
    def is_right(self) -> bool:
        """As a person would say?"""
        return self.choice.mode == self.prompt.mode


@dataclass(frozen=True, slots=True)
class Measured:
    """The classifier over one part of the prompts."""

    results: list[Result]

    @property
    def macro(self) -> float:
        """The mean over modes of how many prompts of one are told."""
        shares = []
        for mode in TOLD:
            rows = [r.is_right for r in self.results if r.prompt.mode == mode]
            shares.append(sum(rows) / len(rows))
        return sum(shares) / len(shares)

    @property
    def wrongly_costly(self) -> float:
        """How many prompts were given a mode that costs money, and should not have been."""
        costly = {mode.id for mode in DEFAULT_MODES if mode.is_costly}
        return sum(r.choice.mode in costly and not r.is_right for r in self.results) / len(
            self.results
        )

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, over ten bins."""
        total = 0.0
        for n in range(BINS):
            rows = [r for r in self.results if min(BINS - 1, int(r.choice.confidence * BINS)) == n]
            if rows:
                right = sum(r.is_right for r in rows) / len(rows)
                said = sum(r.choice.confidence for r in rows) / len(rows)
                total += len(rows) * abs(right - said)
        return total / len(self.results)


def classifier(made: Heads, model: Model | None) -> ModeClassifier:
    """As the server puts it together."""
    costly = frozenset(mode.id for mode in DEFAULT_MODES if mode.is_costly)
    return ModeClassifier(made, costly, None if model is None else Direct(model))


def question(prompt: Prompt) -> ModeQuestion:
    """A request that is this prompt and nothing else."""
    return ModeQuestion(prompt.text, frozenset(mode.id for mode in DEFAULT_MODES))


def measured(made: ModeClassifier, rows: Sequence[Prompt]) -> Measured:
    """All of them."""

    async def ask() -> list[Result]:
        return [Result(row, await made.classify(question(row))) for row in rows]

    return Measured(asyncio.run(ask()))


def costs_ms(made: Heads, rows: Sequence[Prompt], *, has_model: bool) -> list[float]:
    """CPU time of each decision, the least of some tries. With a model: of those for which it is asked."""

    async def ask(one: ModeClassifier) -> list[float]:
        found = []
        for row in rows:
            asked = question(row)
            began = time.process_time()
            choice = await one.classify(asked)
            took = (time.process_time() - began) * 1_000
            found.append(took if choice.tier == EMBEDDING or not has_model else math.inf)
        return found

    # A model that is new knows none of the prompts.
    tries = [
        asyncio.run(ask(classifier(made, Glimpse() if has_model else None))) for _ in range(TRIES)
    ]
    return sorted(cost for cost in map(min, *tries) if cost < math.inf)


# The page


def confusion(found: Measured) -> list[str]:
    """A table: a row for each mode that was meant."""
    counts = Counter((r.prompt.mode, r.choice.mode) for r in found.results)
    chosen = [*TOLD, *sorted({mode for _, mode in counts} - set(TOLD))]
    lines = [
        f"| meant | {' | '.join(chosen)} | right |",
        f"|---|{'---:|' * (len(chosen) + 1)}",
    ]
    for mode in TOLD:
        row = [counts[mode, other] for other in chosen]
        right = counts[mode, mode] / sum(row)
        lines.append(f"| {mode} | {' | '.join(map(str, row))} | {right:.3f} |")
    return lines


def by_source(found: Measured) -> list[str]:
    """A table: a row for each source."""
    lines = ["| source | prompts | right |", "|---|---:|---:|"]
    for name in sorted({r.prompt.source for r in found.results}):
        rows = [r.is_right for r in found.results if r.prompt.source == name]
        lines.append(f"| {name} | {len(rows)} | {sum(rows) / len(rows):.2f} |")
    return lines


def by_tier(found: Measured) -> list[str]:
    """A table: who decided how much, and how well."""
    lines = ["| tier | decided | right | said to be right |", "|---|---:|---:|---:|"]
    for tier in (RULES, LINEAR, EMBEDDING, DEFAULT):
        rows = [r for r in found.results if r.choice.tier == tier]
        if rows:
            right = sum(r.is_right for r in rows) / len(rows)
            said = sum(r.choice.confidence for r in rows) / len(rows)
            lines.append(
                f"| {tier} | {len(rows) / len(found.results):.3f} | {right:.3f} | {said:.3f} |"
            )
    return lines


def page(made: Heads, parts: Mapping[str, Sequence[Prompt]], model: Model) -> str:
    """What stands between the marks in docs/modes.md."""
    ways = {"with the extra `embeddings`": model, "without it": None}
    results = {
        (name, way): measured(classifier(made, with_model), rows)
        for name, rows in parts.items()
        for way, with_model in ways.items()
    }
    lines = [
        "| sources | prompts | | macro accuracy | wrongly costly | calibration error |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for (name, way), found in results.items():
        figures = f"{found.macro:.3f} | {found.wrongly_costly:.2%} | {found.calibration_error:.3f}"
        lines.append(f"| {name} | {len(found.results)} | {way} | {figures} |")
    for (name, way), found in results.items():
        lines += ["", f"### {name[0].upper()}{name[1:]}, {way}", "", *confusion(found)]
        lines += ["", *by_tier(found)]
        if way == next(iter(ways)):
            lines += ["", *by_source(found)]
    everything = [row for rows in parts.values() for row in rows]
    lines += [
        "",
        "### What a decision costs",
        "",
        "| CPU | median | 90 % | 99 % |",
        "|---|---:|---:|---:|",
    ]
    for name, has_model in (("rules and words", False), ("where the model is asked", True)):
        costs = costs_ms(made, everything, has_model=has_model)
        at = [costs[min(len(costs) - 1, int(len(costs) * share))] for share in (0.5, 0.9, 0.99)]
        lines.append(f"| {name} | {' | '.join(f'{cost:.2f} ms' for cost in at)} |")
    return "\n".join(lines)


def main() -> None:
    """Learn, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("--measure", action="store_true", help="learn nothing")
    arguments = parser.parse_args()
    training, seen, unseen = prompts()
    model = Glimpse()
    if arguments.measure:
        made = load_heads()
    else:
        rows = table(training, model)
        made = heads(rows, temperatures(rows, [row.source for row in training]))
        OUTPUT.write_text(written(made) + "\n", encoding="utf-8")
        print(f"{len(training)} prompts, {len(made.weights)} features: {OUTPUT.relative_to(ROOT)}")
    parts = {
        f"sources of which the training saw {SEEN_OF_A_SOURCE} prompts": seen,
        "sources of which it saw none": unseen,
    }
    found = page(made, parts, model)
    print(found)
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{found}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
