"""Recorded streams of all dialects, cut at every byte: whole, told to be broken once, or given by the next.

A recording's end is that of its connection, without a length and without chunks, so that the dialect alone can tell
whether it is whole.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.callers import Callers, Outcome, callers, content_of, spec
from tests.faults.cuts import ENDINGS, Place
from tests.faults.kinds import HEALTHY
from tests.faults.proxy import Fault, Fin, proxy
from tests.faults.tables import Tables
from tests.faults.upstreams import Ask, Step, faulty, healthy
from tests.faults.wires import ENVIRONMENT, MARK, WIRES
from tests.providers.readings import FAILING
from tests.support.service import model, provider, service
from tests.support.upstream import Pause
from trunkline_server.providers.registry import DIALECTS

RECORDINGS: Final = Path(__file__).parents[1] / "recordings"
STREAM_FILES: Final = (".sse", ".ndjson", ".eventstream")
# What else a dialect has to be asked for, so that all of a recording can be shown.
MODELS: Final = {"anthropic": "claude-opus-4-8", "gemini": "gemini-3.8-flash"}
AT_ONCE: Final = 48
UNCUT: Final = 999_999
WAYS: Final = {"gRPC stream": "fin", "SSE": "rst"}  # And the way to cut.


@dataclass(frozen=True)
class Recording:
    """One file of a folder that has a dialect's name."""

    path: Path

    @property
    def dialect(self) -> str:
        """Whose it is."""
        return self.path.parent.name

    @property
    def head(self) -> bytes:
        """Of an answer that ends with its connection."""
        kind = DIALECTS[self.dialect].stream_type
        return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode()

    @property
    def is_complete(self) -> bool:
        """Does it hold an answer to its end?"""
        return not self.path.name.startswith(FAILING)

    @property
    def choices(self) -> int:
        """How many answers were asked for."""
        return 2 if self.path.name.startswith("two_choices") else 1

    @property
    def is_ours(self) -> bool:
        """Does the gateway speak the dialect?"""
        return self.dialect in DIALECTS

    def __str__(self) -> str:
        return f"{self.dialect}/{self.path.name}"


FOUND: Final = [
    recording
    for path in sorted(RECORDINGS.glob("*/*"))
    if path.suffix in STREAM_FILES and (recording := Recording(path)).is_ours
]


@dataclass(frozen=True)
class Shown:
    """What a caller saw: content by kind and place, the reasons of errors, and how often it was said to be whole."""

    content: tuple[tuple[tuple[Any, ...], str], ...]
    errors: tuple[str, ...]
    ends: int

    def begins(self, whole: "Shown") -> bool:
        """Is all content of this a beginning of that?"""
        known = dict(whole.content)
        return all(known.get(key, "").startswith(text) for key, text in self.content)


def shown_of(pieces: Iterable[tuple[tuple[Any, ...], str]], outcome: Outcome) -> Shown:
    """Pieces of one place, joined."""
    found: dict[tuple[Any, ...], str] = {}
    for key, text in pieces:
        found[key] = found.get(key, "") + text
    return Shown(tuple(found.items()), outcome.errors, outcome.ends)


def pieces_of(chunk: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """The content of a chunk of the OpenAI API."""
    for choice in chunk.get("choices", ()):
        for name, value in choice["delta"].items():
            if name == "tool_calls":
                for call in value:
                    key = (choice["index"], name, call["index"])
                    yield key, call["function"].get("arguments", "")
            elif name != "role" and value:
                yield (choice["index"], name), value if isinstance(value, str) else str(value)


@pytest.mark.parametrize(
    ("recording", "way", "cuts"),
    [
        *(
            pytest.param(recording, tuple(WAYS)[n % 2], 7, id=f"short-{recording}")
            for n, recording in enumerate(FOUND)
        ),
        *(
            pytest.param(recording, way, None, id=f"{recording}-{way}", marks=pytest.mark.slow)
            for recording in FOUND
            for way in WAYS
        ),
    ],
)
async def test_a_recording_that_is_cut_anywhere_is_never_taken_for_whole(
    recording: Recording, way: str, cuts: int | None, tables: Tables
):
    data = recording.path.read_bytes()
    step = 1 if cuts is None else max(1, len(data) // cuts)
    offsets = [*range(0, len(data), step), len(data)]
    counts = Counter[str]()
    turns = asyncio.Semaphore(AT_ONCE)

    async with behind(recording, data, len(offsets) + 1) as asking:
        whole = await _asked(asking, way, recording, Place(UNCUT, "fin", len(offsets)))

        if recording.is_complete:
            assert whole.ends == 1
            assert "<mark-" not in str(whole.content), "it was not understood"

        async def one(number: int, offset: int) -> None:
            async with turns:
                place = Place(len(recording.head) + offset, WAYS[way], number)
                shown = await _asked(asking, way, recording, place)
            counts[_how(shown, whole, way)] += 1

        async with asyncio.TaskGroup() as group:
            for number, offset in enumerate(offsets):
                group.create_task(one(number, offset))

    cells = (counts[name] for name in ("as uncut", "error", "next"))
    tables.table(
        "Recordings cut at every byte",
        ("recording, way, cut", "cuts", "as uncut", "one error", "from the next"),
    ).add(f"{recording}, {way}, {WAYS[way].upper()}", len(offsets), *cells)
    assert sum(counts.values()) == len(offsets)


def _how(shown: Shown, whole: Shown, way: str) -> str:
    context = (shown, whole)
    assert shown.ends + len(shown.errors) == 1, context
    if shown == whole:
        return "as uncut"
    if shown.ends:
        ((_, text),) = shown.content
        assert text.startswith("<mark-"), context
        assert f" {HEALTHY}>" in text, context
        return "next"
    assert shown.errors == ("STREAM_INTERRUPTED",), context
    assert shown.begins(whole), context
    # State that is no text is content too, and the OpenAI API has no word for it.
    assert shown.content or way == "SSE", context
    return "error"


async def _asked(asking: Callers, way: str, recording: Recording, place: Place) -> Shown:
    model, prompt = f"route-{place.number}", f"say {place.mark}"
    if way == "SSE":
        chunks, outcome = await asking.sse(model, prompt, choices=recording.choices)
        return shown_of([piece for chunk in chunks for piece in pieces_of(chunk)], outcome)
    asked = spec(model, prompt)
    asked.reasoning.include = True
    asked.sampling.candidate_count = recording.choices
    events, outcome = await asking.stream(asked)
    return shown_of([piece for event in events if (piece := content_of(event))], outcome)


@asynccontextmanager
async def behind(recording: Recording, data: bytes, models: int) -> AsyncIterator[Callers]:
    """A provider that plays the recording, the proxy that cuts it where a mark says, and a healthy one after it."""
    dialect = recording.dialect
    wire, next_wire = WIRES.get(dialect, WIRES["openai"]), WIRES["openai"]

    def choose(sent: bytes) -> Fault:
        found = MARK.search(sent)
        assert found is not None
        place = Place.of(found[0].decode())
        return Fault(place.offset, ENDINGS[place.ending])

    def play(ask: Ask) -> Iterator[Step]:
        """Uncut it comes line by line: of what is read together with an error nothing is shown."""
        yield recording.head
        if Place.of(ask.mark).offset < UNCUT:
            yield data
        else:
            for line in data.splitlines(keepends=True):
                yield line
                yield Pause(0.001)
        yield Fin()

    async with (
        faulty(wire, play) as upstream,
        proxy(upstream.port, choose) as passing,
        healthy(next_wire, HEALTHY) as well,
    ):
        entry = provider("recorded", passing.url, dialect) | dict(wire.settings)
        # One that is well gives one answer; where two are asked for, the recording itself comes next.
        well_url = well.url if recording.choices == 1 else upstream.url
        name = MODELS.get(dialect, "m")
        async with (
            service(
                environment=ENVIRONMENT,
                providers=[entry, next_wire.provider(HEALTHY, well_url)],
                models=[
                    *(model(f"m-{n}", "recorded", model=name) for n in range(models)),
                    model(HEALTHY, HEALTHY),
                ],
                routes=[
                    {
                        "id": f"route-{n}",
                        "candidates": [f"m-{n}", HEALTHY],
                        "strategy": "ordered",
                    }
                    for n in range(models)
                ],
            ) as started,
            callers(started) as asking,
        ):
            yield asking
