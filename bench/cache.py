"""Measures the cache for docs/cache.md: false hits on pairs of questions, and what a hit costs.

    cache.py            prints the tables
    cache.py --write    puts them into docs/cache.md

Needs the extra `embeddings`. The pairs are those of tests/data/question_pairs, made by others to mislead a cache: three
quarters of the traffic of nobody looks like that, so what counts is the difference between the columns.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from trunkline.v1.completion_pb2 import Choice, Completion, FinishReason
from trunkline.v1.completion_spec_pb2 import CompletionSpec, SamplingOptions
from trunkline.v1.message_pb2 import Message, Part, Role
from trunkline_server.cache.answers import Answers, CacheRules
from trunkline_server.cache.question import OpenQuestion
from trunkline_server.cache.semantic import means_the_same
from trunkline_server.core.cache import CacheEvent, CacheSubject
from trunkline_server.embedding.model import Model

ROOT: Final = Path(__file__).resolve().parent.parent
PAIRS: Final = ROOT / "tests/data/question_pairs/pairs.jsonl"
PAGE: Final = ROOT / "docs/cache.md"
BEGIN, END = "<!-- measured by bench/cache.py -->", "<!-- to here -->"
THRESHOLDS: Final = (0.80, 0.85, 0.90, 0.92, 0.94, 0.95, 0.96, 0.98)
LOOKUPS: Final = 20_000
SIZES: Final = (200, 4_000, 40_000)  # Characters of an answer.


class Pair(NamedTuple):
    """Two questions. `is_same`: one answer does for both."""

    is_same: bool
    cosine: float
    passes: bool


def pairs() -> list[Pair]:
    """All of them, with what the model and the guard say."""
    model = Model()
    found = []
    for line in PAIRS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        cosine = model.cosine(row["a"], row["b"]) or 0.0
        found.append(Pair(row["same_answer"], cosine, means_the_same(row["a"], row["b"])))
    return found


def table(found: Sequence[Pair]) -> list[str]:
    """For each threshold: what is given, and how much of it is wrong."""
    same = sum(pair.is_same for pair in found)
    lines = [
        f"{len(found)} pairs, of which {same} have the same answer.",
        "",
        "| similarity from | found, no guard | false, no guard | found, guard | false, guard |",
        "|---|---|---|---|---|",
    ]
    for least in THRESHOLDS:
        cells = [f"{least:.2f}"]
        for is_guarded in (False, True):
            given = [p for p in found if p.cosine >= least and (p.passes or not is_guarded)]
            right = sum(pair.is_same for pair in given)
            share = f"{(len(given) - right) / len(given):.1%}" if given else "-"
            cells += [f"{right / same:.1%}", f"{len(given) - right} of {len(given)} ({share})"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


class Unmetered:
    def count(self, event: CacheEvent) -> None:
        """Not."""


async def cost(chars: int) -> tuple[float, float]:
    """Microseconds of CPU for a hit on an answer so long, and for asking whether a plain request could be one."""
    rules = CacheRules()
    cache = Answers(
        rules,
        shelf=None,
        semantic=None,
        now_us=lambda: time.time_ns() // 1_000,
        meter=Unmetered(),
    )
    messages = [Message(role=Role.ROLE_USER, parts=[Part(text="Why is the sky blue?")])]
    plain = CompletionSpec(messages=messages, model="m")
    spec = CompletionSpec(messages=messages, sampling=SamplingOptions(temperature=0), model="m")
    subject = CacheSubject("acme", spec, spec)
    question = await cache.look(subject, float("inf"))
    assert isinstance(question, OpenQuestion)
    text = "It scatters. " * (chars // 13)
    message = Message(role=Role.ROLE_ASSISTANT, parts=[Part(text=text)])
    stop = FinishReason.FINISH_REASON_STOP
    await question.store(Completion(choices=[Choice(message=message, finish_reason=stop)]))
    began = time.process_time_ns()
    for _ in range(LOOKUPS):
        await cache.look(subject, float("inf"))
    hit_us = (time.process_time_ns() - began) / LOOKUPS / 1_000
    began = time.process_time_ns()
    for _ in range(LOOKUPS):
        cache.is_eligible(plain)
    return hit_us, (time.process_time_ns() - began) / LOOKUPS / 1_000


def costs() -> list[str]:
    """What a hit in memory costs."""
    found = [asyncio.run(cost(chars)) for chars in SIZES]
    lines = ["| answer | CPU of a hit |", "|---|---|"]
    lines += [
        f"| {chars:,} characters | {us:.0f} µs |"
        for chars, (us, _) in zip(SIZES, found, strict=True)
    ]
    return [*lines, "", f"A request that the cache has nothing to do with: {found[0][1]:.1f} µs."]


def main() -> None:
    """Print, or write."""
    parser = argparse.ArgumentParser(description="Measure the cache.")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    text = "\n".join([*table(pairs()), "", *costs()])
    if not arguments.write:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
