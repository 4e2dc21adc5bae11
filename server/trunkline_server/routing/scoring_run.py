"""What was measured of models, once: an immutable record, as JSON in a file.

A record's id is the hash of everything else in it, so an id in a log line or a response stands for exactly these
numbers, and a file that was edited by hand is refused.
"""

import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_CELLS: Final = 100_000
MAX_TIMINGS: Final = 10_000
MAX_SAMPLES: Final = 10_000  # Of one model's times.
ID_BYTES: Final = 13
LANGUAGE: Final = re.compile(r"(|[a-z]{2,3})\Z")
REGION: Final = re.compile(r"(|[a-z0-9][a-z0-9-]{0,31})\Z")
STARTER_FILE: Final = "starter_scores.json"

Text = Annotated[str, Meta(max_length=512)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Cell(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How well a model answers, in one language and region.

    Attributes:
        model: `provider/id` or id of the configuration, or the provider's own name for it.
        mean: 0 to 1.
        language: a primary subtag such as `de`; empty: all together.
        region: such as `eu`; empty: all together.
        n: answers that were judged. Absent where the source says no number: then the mean is taken as it is.
        low, high: its 95 % interval, where known.
    """

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    mean: Share
    language: str = ""
    region: str = ""
    n: Annotated[int, Meta(ge=1)] | None = None
    low: Share | None = None
    high: Share | None = None


class Timing(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How fast a model began to answer: milliseconds to the first token of each answer, and how many never came."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    first_token_ms: Annotated[
        list[Annotated[float, Meta(gt=0, le=3_600_000)]], Meta(max_length=MAX_SAMPLES)
    ]
    failures: Annotated[int, Meta(ge=0, le=MAX_SAMPLES)] = 0


class DataSet(Struct, frozen=True, forbid_unknown_fields=True):
    """What was asked. `sha256` is that of its file, in hexadecimal."""

    name: Text
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ScoringRun(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run.

    Attributes:
        time: when it was made, RFC 3339.
        judge: what decided whether an answer is right.
        source: where the numbers come from, if they were not measured here.
    """

    id: str = ""
    time: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    data_set: DataSet
    judge: Text
    source: Text = ""
    cells: Annotated[list[Cell], Meta(max_length=MAX_CELLS)]
    timings: Annotated[list[Timing], Meta(max_length=MAX_TIMINGS)] = []


class UnusableRun(Exception):
    """A scoring run can't be used. The text says why."""


def sealed(run: ScoringRun) -> ScoringRun:
    """The same run, with the id that belongs to it.

    Raises:
        UnusableRun: it contradicts itself.
    """
    for problem in _problems(run):
        raise UnusableRun(problem)
    return msgspec.structs.replace(run, id=_id_of(run))


def encoded(run: ScoringRun) -> bytes:
    """As a file holds it."""
    return msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n"


def load(path: Path) -> ScoringRun:
    """The run of a file.

    Raises:
        UnusableRun: it can't be read, is none, or is not what its id stands for.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnusableRun(f"{path} can't be read: {error.strerror}") from error
    return _decoded(data, str(path))


def starter() -> ScoringRun:
    """The run that comes with the project: published figures of well-known models."""
    data = files("trunkline_server.routing").joinpath(STARTER_FILE).read_bytes()
    return _decoded(data, STARTER_FILE)


def _decoded(data: bytes, origin: str) -> ScoringRun:
    if len(data) > MAX_FILE_BYTES:
        raise UnusableRun(f"{origin} is larger than {MAX_FILE_BYTES} bytes")
    try:
        run = msgspec.json.decode(data, type=ScoringRun)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnusableRun(f"{origin} is no scoring run: {error}") from error
    for problem in _problems(run):
        raise UnusableRun(f"{origin}: {problem}")
    if run.id != _id_of(run):
        raise UnusableRun(
            f"{origin} was changed: its content has the id {_id_of(run)}, and it says {run.id[:64]!r}"
        )
    return run


def _problems(run: ScoringRun) -> Iterator[str]:
    seen = set()
    for i, cell in enumerate(run.cells):
        place = (cell.model, cell.language, cell.region)
        if not LANGUAGE.match(cell.language):
            yield f"cells[{i}].language: {cell.language[:32]!r} is no primary language subtag, such as 'de'"
        if not REGION.match(cell.region):
            yield f"cells[{i}].region: {cell.region[:64]!r} is no region: lower-case letters, digits and - only"
        if place in seen:
            yield f"cells[{i}]: {' '.join(filter(None, place))} is there twice"
        seen.add(place)
        if (cell.low is None) != (cell.high is None):
            yield f"cells[{i}]: low and high go together"
        if (
            cell.low is not None
            and cell.high is not None
            and not cell.low <= cell.mean <= cell.high
        ):
            yield f"cells[{i}]: the mean is not between low and high"


def _id_of(run: ScoringRun) -> str:
    content = msgspec.json.encode(msgspec.structs.replace(run, id=""), order="sorted")
    return f"run_{hashlib.sha256(content).hexdigest()[: 2 * ID_BYTES]}"
