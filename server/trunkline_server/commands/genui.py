"""`trunkline genui`: what a component library would let through, and what it tells a model, without a server."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

from trunkline_server.app_orchestration import build_libraries
from trunkline_server.commands.calling import CommandError
from trunkline_server.commands.words import visible
from trunkline_server.config import load
from trunkline_server.core.errors import InvalidRequest
from trunkline_server.genui.library import SUFFIXES, Library, LibraryProblem, read_library

MAX_ANSWER_CHARS: Final = 16 * 1024 * 1024
CHUNK_CHARS: Final = 64 * 1024


def add_genui(commands: Any) -> None:
    """The parsers."""
    genui = commands.add_parser(
        "genui", help="user interfaces that models write, and component libraries for them"
    ).add_subparsers(metavar="check | prompt", required=True)
    library = argparse.ArgumentParser(add_help=False)
    library.add_argument(
        "--library", default="", metavar="ID", help="or a file of one; default: the configured one"
    )
    library.add_argument("--config", metavar="FILE", help="of which [genui] counts")
    check = genui.add_parser(
        "check", parents=[library], help="check an answer, and print what a caller would get of it"
    )
    check.add_argument("file", metavar="FILE", help="- for standard input")
    check.set_defaults(run=_check)
    prompt = genui.add_parser(
        "prompt", parents=[library], help="print what a model is told of the components"
    )
    prompt.set_defaults(run=_prompt)


def _check(arguments: argparse.Namespace) -> int:
    checker = _library(arguments).checker()
    try:
        with _opened(arguments.file) as file:
            for _ in range(MAX_ANSWER_CHARS // CHUNK_CHARS):
                text = file.read(CHUNK_CHARS)
                sys.stdout.write(checker.feed(text))
                if not text:
                    break
            else:
                raise CommandError(f"{arguments.file} is larger than any answer")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CommandError(f"{arguments.file}: {reason}") from error
    sys.stdout.write(checker.end())
    sys.stdout.flush()
    for warning in checker.warnings:
        name = f"{visible(warning.field)}: " if warning.field else ""
        print(f"{warning.code}: {name}{visible(warning.message)}", file=sys.stderr)
    return 1 if checker.warnings else 0


def _prompt(arguments: argparse.Namespace) -> int:
    sys.stdout.write(_library(arguments).prompt)
    return 0


def _opened(name: str) -> Any:
    if name == "-":
        return open(sys.stdin.fileno(), encoding="utf-8", newline="", closefd=False)
    return open(name, encoding="utf-8", newline="")


def _library(arguments: argparse.Namespace) -> Library:
    named: str = arguments.library
    if named.endswith(SUFFIXES):
        try:
            return read_library(Path(named))
        except LibraryProblem as error:
            raise CommandError(str(error)) from error
    settings, _ = load(arguments.config, os.environ, {})
    try:
        return build_libraries(settings).find(named)
    except InvalidRequest as error:
        raise CommandError(f"--library: {error.violations[0].description}") from error
