"""A scoring run's file: never in the place of anything else, and never half of one."""

import os
import secrets
from pathlib import Path

from trunkline_server.config import ConfigError
from trunkline_server.routing.scoring_run import ScoringRun, UnusableRun, encoded, load


def check(path: Path) -> None:
    """Could a run be stored there?

    Raises:
        ConfigError: its folder can't be written to, or something else is there.
    """
    check_folder(path)
    if _is_taken(path):
        raise ConfigError(
            [f"{path} is there and is no scoring run, so it is left alone: name another --output"]
        )


def check_folder(path: Path) -> None:
    """Could a file be written there?

    Raises:
        ConfigError.
    """
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError([f"{path.parent} is no folder that can be written to"])


def store(run: ScoringRun, path: Path) -> Path:
    """Write it; returns where. If something else has come to be there meanwhile, the run's id is the name.

    Raises:
        ConfigError: it can't be written.
    """
    if _is_taken(path):
        path = path.with_name(f"{run.id}.json")
    write(path, encoded(run))
    return path


def write(path: Path, data: bytes) -> None:
    """All of it, or what was there before.

    Raises:
        ConfigError: it can't be written.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        try:
            with new.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError([f"{path} can't be written: {error.strerror}"]) from error


def _is_taken(path: Path) -> bool:
    if not os.path.lexists(path):
        return False
    if not path.is_file():
        return True
    try:
        load(path)
    except UnusableRun:
        return True
    return False
