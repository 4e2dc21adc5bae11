"""Skills of a folder: each a folder of its own, with its SKILL.md and whatever texts that refers to.

All of it is read at start and kept, so that a request never waits for a disk, and a name that a model makes up is
looked for among what was read and nowhere else.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path
from typing import Final

from trunkline.v1.completion_spec_pb2 import BuiltinSource, RegisteredSource, Tool
from trunkline_server.core.errors import InvalidRequest, NotSupported
from trunkline_server.core.skill import Skill
from trunkline_server.core.tools import Tools
from trunkline_server.skills.format import UnusableSkill, Written, read

FILE: Final = "SKILL.md"
BUNDLED: Final = Path(__file__).parent / "bundled"
MAX_SKILLS: Final = 500  # Of one folder.
MAX_FILE_BYTES: Final = 128 * 1024
MAX_RESOURCES: Final = 64  # Of one skill,
MAX_RESOURCE_BYTES: Final = 256 * 1024
MAX_SKILL_BYTES: Final = 1024 * 1024  # and all of them together.
MAX_DEPTH: Final = 4
MAX_PATH_CHARS: Final = 256
DIGEST_CHARS: Final = 12


@dataclass(frozen=True, slots=True)
class Loaded:
    """A skill, and its resources by their path below its folder."""

    skill: Skill
    resources: Mapping[str, str]


class UnusableSkills(ValueError):
    """Skills that can't be used. `problems` says each reason in a line, and names the file."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def load(directory: Path, tools: Tools | None) -> list[Loaded]:
    """All skills of a folder, by slug.

    Args:
        tools: those that skills may bring along: registered ones, and builtins; None: any.

    Raises:
        UnusableSkills.
    """
    loaded: list[Loaded] = []
    problems: list[str] = []
    try:
        folders = sorted(path for path in directory.iterdir() if _is_shown(path))
    except OSError as error:
        raise UnusableSkills([f"{directory}: {error.strerror}"]) from error
    folders = [path for path in folders if path.is_dir()]
    if len(folders) > MAX_SKILLS:
        raise UnusableSkills([f"{directory}: has more than {MAX_SKILLS} skills"])
    for folder in folders:
        try:
            _check_inside(folder, directory)
            loaded.append(_loaded(folder, tools))
        except UnusableSkill as error:
            problems.append(f"{folder / FILE}: {error}")
        except OSError as error:
            problems.append(f"{error.filename or folder}: {error.strerror}")
    if problems:
        raise UnusableSkills(problems)
    return loaded


def _loaded(folder: Path, tools: Tools | None) -> Loaded:
    file = folder / FILE
    if not file.is_file():
        raise UnusableSkill("is not there")
    _check_inside(file, folder)
    data = _read(file, MAX_FILE_BYTES)
    try:
        written = read(data.decode())
    except UnicodeDecodeError as error:
        raise UnusableSkill("is not in UTF-8") from error
    if written.name != folder.name:
        raise UnusableSkill(f"name: is {written.name!r}, but its folder is called {folder.name!r}")
    resources = _resources(folder)
    return Loaded(_skill(written, _digest(data, resources), tools, resources), resources)


def _skill(
    written: Written, digest: str, tools: Tools | None, resources: Mapping[str, str]
) -> Skill:
    return Skill(
        slug=written.name,
        name=written.title,
        description=written.description,
        version=f"{written.version}+{digest}" if written.version else digest,
        category=written.category,
        instructions=written.instructions,
        tools=tuple(_tool(name, tools) for name in written.tools),
        models=written.models,
        intensity=written.intensity,
        resources=tuple(resources),
    )


def _tool(name: str, tools: Tools | None) -> Tool:
    """As the operator registered it; else the builtin of this name."""
    kinds = (
        Tool(name=name, registered=RegisteredSource()),
        Tool(name=name, builtin=BuiltinSource(name=name)),
    )
    for tool in kinds:
        try:
            if tools is not None:
                tools.resolve(tool, name)
        except (InvalidRequest, NotSupported):
            continue
        return tool
    raise UnusableSkill(f"metadata.tools: no tool is registered as {name!r}, and no builtin is it")


def _resources(folder: Path) -> dict[str, str]:
    """Texts beside the SKILL.md. What is no text is left out: no model could read it."""
    found: dict[str, str] = {}
    total_bytes = 0
    for path in _files(folder, folder, 0):
        name = path.relative_to(folder).as_posix()
        if name == FILE:
            continue
        if len(name) > MAX_PATH_CHARS or not name.isprintable():
            raise UnusableSkill(f"{name[:64]!r}: is no name for a file")
        data = _read(path, MAX_RESOURCE_BYTES)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            continue
        found[name] = text
        total_bytes += len(data)
        if len(found) > MAX_RESOURCES or total_bytes > MAX_SKILL_BYTES:
            raise UnusableSkill(
                f"more than {MAX_RESOURCES} files, or {MAX_SKILL_BYTES} bytes, are beside it"
            )
    return found


def _files(folder: Path, root: Path, depth: int) -> Iterator[Path]:
    if depth > MAX_DEPTH:
        raise UnusableSkill(f"{folder.name}: nests deeper than {MAX_DEPTH} folders")
    for path in sorted(folder.iterdir()):
        if not _is_shown(path):
            continue
        _check_inside(path, root)
        if path.is_dir():
            # A link to a folder inside: its files are found there.
            if not path.is_symlink():
                yield from _files(path, root, depth + 1)
        elif path.is_file():
            yield path


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".")


def _check_inside(path: Path, root: Path) -> None:
    # Other than `resolve` it takes a link to itself for one that leads nowhere.
    if not Path(realpath(path)).is_relative_to(realpath(root)):
        raise UnusableSkill(f"{path.relative_to(root).as_posix()}: leads out of its folder")


def _read(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise UnusableSkill(f"{path.name}: is larger than {limit_bytes} bytes")
    return data


def _digest(data: bytes, resources: Mapping[str, str]) -> str:
    digest = hashlib.sha256(b"%d:" % len(data) + data)
    for name, text in resources.items():
        for part in (name.encode(), text.encode()):
            digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()[:DIGEST_CHARS]
