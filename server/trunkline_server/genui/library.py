"""Libraries of components: one file for each, TOML or JSON, in a folder."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from trunkline_server.core.errors import InvalidRequest
from trunkline_server.genui.checker import AnswerChecker
from trunkline_server.genui.component import Component, Parameter
from trunkline_server.genui.grammar import grammar_of
from trunkline_server.genui.parser import MAX_NAME_CHARS
from trunkline_server.genui.prompt import prompt_of
from trunkline_server.genui.slots import slot_from

DEFAULT: Final = "basic"
MAX_FILE_BYTES: Final = 1024 * 1024
MAX_LIBRARIES: Final = 100
MAX_COMPONENTS: Final = 200
MAX_PARAMETERS: Final = 32
SUFFIXES: Final = (".toml", ".json")
RESERVED: Final = frozenset({"Action", "Query", "Mutation"})

_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
_COMPONENT_NAME: Final = re.compile(rf"[A-Z][A-Za-z0-9_]{{0,{MAX_NAME_CHARS - 1}}}\Z")
_PARAMETER_NAME: Final = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME_CHARS - 1}}}\Z")

Text = Annotated[str, Meta(max_length=2_000)]


class LibraryProblem(Exception):
    """A file that is no library. The text names the file, and what in it is wrong."""


class _ParameterFile(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    type: Text
    required: bool = False


class _ComponentFile(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parameters: Annotated[list[_ParameterFile], Meta(max_length=MAX_PARAMETERS)] = []
    description: Text = ""
    aliases: Annotated[list[str], Meta(max_length=16)] = []


class _LibraryFile(Struct, frozen=True, forbid_unknown_fields=True):
    components: Annotated[list[_ComponentFile], Meta(min_length=1, max_length=MAX_COMPONENTS)]
    root: str = ""
    description: Text = ""
    instructions: Annotated[str, Meta(max_length=16_384)] = ""
    example: Annotated[str, Meta(max_length=16_384)] = ""
    tools: Annotated[list[str], Meta(max_length=128)] = []


@dataclass(frozen=True, slots=True)
class Library:
    """One library: the `ComponentLibrary` port.

    Attributes:
        id: the name of its file.
        root: the component that an answer should begin with; may be empty.
        components: by name, and by the names that they had before.
    """

    id: str
    root: str
    components: Mapping[str, Component]
    tools: Sequence[str] = ()
    description: str = ""
    instructions: str = ""
    example: str = ""
    prompt: str = field(init=False)
    grammar: str = field(init=False)

    def __post_init__(self) -> None:
        # Under their own names only.
        components = [c for name, c in self.components.items() if c.name == name]
        object.__setattr__(self, "grammar", grammar_of(self.root, components))
        prompt = prompt_of(
            self.root,
            components,
            self.tools,
            self.instructions,
            self.example,
        )
        object.__setattr__(self, "prompt", prompt)

    def checker(self) -> AnswerChecker:
        """For one answer."""
        return AnswerChecker(self.components, frozenset(self.tools), self.root)


class Libraries:
    """All libraries of a server: the `ComponentLibraries` port.

    Args:
        libraries: by id.
        default: id of the one that an empty id stands for.
    """

    def __init__(self, libraries: Mapping[str, Library], default: str = DEFAULT) -> None:
        self._libraries = libraries
        self._default = default

    @property
    def ids(self) -> Sequence[str]:
        """In order of the alphabet."""
        return sorted(self._libraries)

    def find(self, library_id: str) -> Library:
        """By id; the default one for an empty id.

        Raises:
            InvalidRequest: naming `spec.component_library`.
        """
        library = self._libraries.get(library_id or self._default)
        if library is None:
            near = get_close_matches(library_id[:64], self._libraries, 1)
            hint = (
                f": did you mean {near[0]!r}?" if near else f": there are {', '.join(self.ids[:8])}"
            )
            raise InvalidRequest(
                "spec.component_library", f"no component library has this id{hint}"
            )
        return library


def read_libraries(directory: str = "", default: str = "") -> Libraries:
    """The library that ships, and those of a folder; one of the same id replaces it.

    Args:
        default: id of the one that is meant where none is named; empty: the one that ships.

    Raises:
        LibraryProblem.
    """
    libraries = {DEFAULT: bundled_library()}
    if directory:
        paths = sorted(p for p in Path(directory).iterdir() if p.suffix in SUFFIXES)
        if len(paths) > MAX_LIBRARIES:
            raise LibraryProblem(f"{directory}: more than {MAX_LIBRARIES} libraries")
        found: dict[str, Path] = {}
        for path in paths:
            library = read_library(path)
            if library.id in found:
                raise LibraryProblem(f"{path}: {found[library.id].name} has the same id")
            found[library.id] = path
            libraries[library.id] = library
    if default and default not in libraries:
        raise LibraryProblem(
            f"genui.default: there is no library {default!r}: there are {', '.join(sorted(libraries))}"
        )
    return Libraries(libraries, default or DEFAULT)


def bundled_library() -> Library:
    """The one that ships."""
    file = resources.files("trunkline_server.genui") / "libraries" / f"{DEFAULT}.toml"
    return library_from(DEFAULT, file.read_bytes(), ".toml", f"{DEFAULT}.toml")


def read_library(path: Path) -> Library:
    """One file.

    Raises:
        LibraryProblem.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise LibraryProblem(f"{path}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise LibraryProblem(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    return library_from(path.stem, content, path.suffix, str(path))


def library_from(library_id: str, content: bytes, suffix: str, where: str) -> Library:
    """A library from what a file says.

    Args:
        suffix: `.toml` or `.json`.
        where: the file's name, for errors.

    Raises:
        LibraryProblem.
    """
    if not _ID.match(library_id):
        raise LibraryProblem(f"{where}: the file's name is no id: a-z, 0-9, - and _, at most 64")
    decode = msgspec.json.decode if suffix == ".json" else msgspec.toml.decode
    try:
        file = decode(content, type=_LibraryFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LibraryProblem(f"{where}: {error}") from error
    problem = next(_problems(file), None)
    if problem is not None:
        raise LibraryProblem(f"{where}: {problem}")
    names = [name for c in file.components for name in (c.name, *c.aliases)]
    components: dict[str, Component] = {}
    for component in file.components:
        parameters = []
        for p in component.parameters:
            try:
                slot = slot_from(p.type, names)
            except ValueError as error:
                raise LibraryProblem(f"{where}: {component.name}.{p.name}: {error}") from error
            parameters.append(Parameter(p.name, p.type, slot, p.required))
        made = Component(component.name, tuple(parameters), component.description)
        components |= dict.fromkeys((component.name, *component.aliases), made)
    library = Library(
        library_id,
        file.root,
        components,
        tuple(file.tools),
        file.description,
        file.instructions,
        file.example,
    )
    if file.example:
        checker = library.checker()
        checker.feed(file.example)
        checker.end()
        if checker.warnings:
            raise LibraryProblem(f"{where}: example: {checker.warnings[0].message}")
    return library


def _problems(file: _LibraryFile) -> Iterator[str]:
    seen: set[str] = set()
    for component in file.components:
        for name in (component.name, *component.aliases):
            if not _COMPONENT_NAME.match(name) or name in RESERVED:
                yield f"{name[:MAX_NAME_CHARS]!r} can't be a component's name"
            if name in seen:
                yield f"two components are called {name}"
            seen.add(name)
        names = [p.name for p in component.parameters]
        if len(set(names)) < len(names):
            yield f"{component.name}: two parameters have one name"
        is_optional = False
        for parameter in component.parameters:
            if not _PARAMETER_NAME.match(parameter.name):
                yield f"{component.name}: {parameter.name[:64]!r} can't be a parameter's name"
            if parameter.required and is_optional:
                yield f"{component.name}.{parameter.name}: it is required, and comes after one that is not"
            is_optional = not parameter.required
    if file.root and file.root not in seen:
        yield f"root: there is no component {file.root[:64]!r}"
