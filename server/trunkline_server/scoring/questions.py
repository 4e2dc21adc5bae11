"""The bundled data set: short questions in several languages, each with one right answer."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import msgspec
from msgspec import Struct

from trunkline_server.routing.scoring_run import DataSet
from trunkline_server.scoring.judge import Kind

FILE: Final = "questions.json"


class Question(Struct, frozen=True, forbid_unknown_fields=True):
    """One question. `language` is a primary subtag; `also` holds other ways to write the answer."""

    id: str
    language: str
    kind: Kind
    prompt: str
    answer: str
    also: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every way to write the answer."""
        return (self.answer, *self.also)


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Questions:
    """Some or all of the data set, and what a record says of it."""

    data_set: DataSet
    questions: tuple[Question, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """Each once, in the order of the file."""
        return tuple(dict.fromkeys(question.language for question in self.questions))

    def of(self, languages: Iterable[str]) -> "Questions":
        """Those of some languages. The name of the data set then tells which."""
        wanted = set(languages)
        kept = tuple(question for question in self.questions if question.language in wanted)
        if len(kept) == len(self.questions):
            return self
        name = f"{self.data_set.name}, of which {' '.join(sorted(wanted))}"
        return Questions(DataSet(name, self.data_set.sha256), kept)


def bundled() -> Questions:
    """All of the file that comes with the project."""
    data = files("trunkline_server.scoring").joinpath(FILE).read_bytes()
    file = msgspec.json.decode(data, type=_File)
    return Questions(DataSet(file.name, hashlib.sha256(data).hexdigest()), file.questions)
