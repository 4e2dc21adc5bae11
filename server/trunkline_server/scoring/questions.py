"""Questions that have one right answer each: the bundled sets, and files of others."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from trunkline_server.config import ConfigError
from trunkline_server.routing.scoring_run import DataSet
from trunkline_server.scoring.judge import Kind, is_right

FILE: Final = "questions.json"
PANEL_FILE: Final = "panel_questions.jsonl"
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_QUESTIONS: Final = 1_000
MAX_PROMPT_CHARS: Final = 100_000
MAX_ANSWER_CHARS: Final = 1_000

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Answer = Annotated[str, Meta(min_length=1, max_length=MAX_ANSWER_CHARS)]


class Question(Struct, frozen=True, forbid_unknown_fields=True):
    """One question. `language` is a primary subtag; `also` holds other ways to write the answer."""

    id: Id
    kind: Kind
    prompt: Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT_CHARS)]
    answer: Answer
    language: str = "en"
    also: Annotated[tuple[Answer, ...], Meta(max_length=64)] = ()

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


def bundled_for_panels() -> tuple[Question, ...]:
    """Those that `trunkline panel eval` asks unless it is given others."""
    return of_lines(files("trunkline_server.scoring").joinpath(PANEL_FILE).read_bytes(), PANEL_FILE)


def of_file(path: Path) -> tuple[Question, ...]:
    """Those of a file of JSON lines.

    Raises:
        ConfigError: it can't be read, or is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path} can't be read: {error.strerror}"]) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([f"{path} has more than {MAX_FILE_BYTES >> 20} MiB"])
    return of_lines(data, str(path))


def of_lines(data: bytes, source: str) -> tuple[Question, ...]:
    """One question on each line; empty lines do not count.

    Raises:
        ConfigError: a line is no question, or its own answer would be judged wrong.
    """
    found: dict[str, Question] = {}
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            question = msgspec.json.decode(line, type=Question)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError([f"{where}: {error}"]) from error
        if question.id in found:
            raise ConfigError([f"{where}: another question has that id already"])
        if not all(is_right(a, question.kind, question.accepted) for a in question.accepted):
            raise ConfigError([f"{where}: an answer is no {question.kind.value}"])
        found[question.id] = question
        if len(found) > MAX_QUESTIONS:
            raise ConfigError([f"{source} has more than {MAX_QUESTIONS} questions"])
    if not found:
        raise ConfigError([f"{source} has no questions"])
    return tuple(found.values())
