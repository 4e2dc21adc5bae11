"""The part of the composition root that orchestrated requests need: modes, personas, skills, conversations, cache."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from trunkline_server.config import ConfigError, Settings
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.modes import MODE_ROUTE, Mode, Modes
from trunkline_server.core.personas import BUILT_IN
from trunkline_server.core.tools import Tools
from trunkline_server.embedding.minilm import MiniLM, is_installed
from trunkline_server.embedding.unknown import Unknown
from trunkline_server.genui.library import Libraries, LibraryProblem, read_libraries
from trunkline_server.routing.catalog import Route
from trunkline_server.routing.default_modes import modes_of
from trunkline_server.routing.mode_classifier import Embedder, ModeClassifier
from trunkline_server.routing.mode_heads import load_heads
from trunkline_server.skills.folder import BUNDLED, Loaded, UnusableSkills, load

MAX_PERSONA_BYTES: Final = 256 * 1024


def build_modes(settings: Settings, candidates: Iterable[Candidate]) -> Modes:
    """Those that ship, those of the configuration, and those that a model alone names.

    Raises:
        ConfigError.
    """
    try:
        modes = modes_of(
            [msgspec.structs.asdict(mode) for mode in settings.modes],
            promotes=settings.classifier.promote,
        )
    except ValueError as error:
        raise ConfigError([f"modes: {error}"]) from error
    disabled = {mode.id for mode in settings.modes if not mode.enabled}
    named = {name for candidate in candidates for name in candidate.modes}
    plain = {name: Mode(name) for name in sorted(named - disabled - {"auto", *modes.by_id})}
    return Modes({**modes.by_id, **plain}, modes.promotes)


def routes_of(modes: Modes) -> list[Route]:
    """A route for each mode that names its models, under a name of its own."""
    return [
        Route(id=f"{MODE_ROUTE}{mode.id}", candidates=mode.models, label=mode.label)
        for mode in modes.by_id.values()
        if mode.models
    ]


def build_personas(settings: Settings) -> dict[str, str]:
    """Texts by name; that of everybody who names none is called "".

    Raises:
        ConfigError.
    """
    personas = dict(BUILT_IN)
    for name, persona in settings.personas.items():
        text = persona.system_prompt or _text(name, Path(persona.file))
        personas["" if name == USUAL else name] = text
    return personas


USUAL: Final = "default"


def _text(name: str, path: Path) -> str:
    try:
        data = path.read_bytes()
        if len(data) > MAX_PERSONA_BYTES:
            raise ConfigError(
                [f"personas: {name!r}: {path} is larger than {MAX_PERSONA_BYTES} bytes"]
            )
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"personas: {name!r}: {path}: {type(error).__name__}"]) from error


def build_skills(settings: Settings, tools: Tools) -> list[Loaded]:
    """Those that ship and those of the configured folder, where one of its own replaces one that ships.

    Raises:
        ConfigError.
    """
    folders = [BUNDLED] if settings.skills.bundled else []
    if settings.skills.directory:
        folders.append(Path(settings.skills.directory))
    try:
        return [loaded for folder in folders for loaded in load(folder, tools)]
    except UnusableSkills as error:
        raise ConfigError([f"skills: {problem}" for problem in error.problems]) from error


def build_libraries(settings: Settings) -> Libraries:
    """The component libraries.

    Raises:
        ConfigError.
    """
    try:
        return read_libraries(settings.genui.directory, settings.genui.default)
    except LibraryProblem as error:
        raise ConfigError([f"genui: {error}"]) from error


def new_embedder(report: Callable[[str], None]) -> MiniLM | Unknown:
    """What tells how alike texts are, and where one points; nothing, where the extra `embeddings` is missing."""
    return MiniLM(report) if is_installed() else Unknown()


def new_classifier(settings: Settings, modes: Modes, embedder: Embedder) -> ModeClassifier:
    """What resolves the mode `auto`."""
    costly = frozenset(mode.id for mode in modes.by_id.values() if mode.is_costly)
    return ModeClassifier(load_heads(), costly, embedder if settings.classifier.embedding else None)
