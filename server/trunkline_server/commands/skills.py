"""`trunkline skills`: which there are, who has them installed, and whether a folder of them can be used."""

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import Any, Final

from trunkline.v1.catalog_service_pb2 import Skill
from trunkline_server.commands.calling import CommandError, new_client
from trunkline_server.commands.output import MAX_PAGE, Column, print_messages, print_table
from trunkline_server.commands.words import visible
from trunkline_server.skills.folder import Loaded, UnusableSkills, load

MAX_LISTED: Final = 1_000
COLUMNS: Final = tuple(map(Column, ("slug", "name", "category", "version", "installed")))


def add_skills(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The parsers."""
    skills = commands.add_parser("skills", help="list, install and check skills")
    actions = skills.add_subparsers(metavar="ACTION", required=True)

    listing = actions.add_parser("list", parents=parents, help="all skills of a service")
    listing.add_argument("--json", action="store_true", help="a line of JSON for each")
    listing.set_defaults(run=_list)

    for name, run, told in (
        ("show", _show, "what a skill is for"),
        ("install", _install, "add a skill to all requests of your organisation"),
        ("uninstall", _uninstall, "take it away again"),
    ):
        action = actions.add_parser(name, parents=parents, help=told)
        action.add_argument("slug", metavar="SLUG")
        action.add_argument("--json", action="store_true")
        action.set_defaults(run=run)

    check = actions.add_parser(
        "check", help="read a folder of skills and say what is wrong with it"
    )
    check.add_argument("folder", metavar="FOLDER", type=Path)
    check.set_defaults(run=_check)


def _list(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        found = client.list_skills(page_size=MAX_PAGE)
        if arguments.json:
            print_messages(found)
            return 0
        skills = list(islice(found, MAX_LISTED))
    print_table(COLUMNS, [_row(skill) for skill in skills])
    return 0


def _row(skill: Skill) -> list[str]:
    installed = "yes" if skill.installed else "no"
    return [skill.slug, skill.name, skill.category, skill.version, installed]


def _show(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        found = [s for s in client.list_skills(page_size=MAX_PAGE) if s.slug == arguments.slug]
    if not found:
        raise CommandError(
            f"no skill is called {visible(arguments.slug)}; see `trunkline skills list`"
        )
    skill = found[0]
    if arguments.json:
        print_messages([skill])
        return 0
    print(f"{visible(skill.name)} ({visible(skill.slug)})")
    print(visible(skill.description))
    print(f"category:  {visible(skill.category) or '-'}")
    print(f"version:   {visible(skill.version)}")
    print(f"installed: {'yes' if skill.installed else 'no'}")
    return 0


def _install(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        skill = client.install_skill(arguments.slug)
    return _done(arguments, skill, "is installed: it may join every request of your organisation")


def _uninstall(arguments: argparse.Namespace) -> int:
    with new_client(arguments) as client:
        skill = client.uninstall_skill(arguments.slug)
    return _done(arguments, skill, "is not installed any more")


def _done(arguments: argparse.Namespace, skill: Skill, told: str) -> int:
    if arguments.json:
        print_messages([skill])
    else:
        print(f"{visible(skill.slug)} {told}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    """Without a service, so tools are not looked for."""
    try:
        found = load(arguments.folder, None)
    except UnusableSkills as error:
        for problem in error.problems:
            print(f"trunkline: {visible(problem)}", file=sys.stderr)
        return 2
    for loaded in found:
        print(visible(_told(loaded)))
    print(f"nothing is wrong with {len(found)} of {len(found)}" if found else "no skills there")
    return 0


def _told(loaded: Loaded) -> str:
    skill = loaded.skill
    parts = [f"{len(skill.instructions)} characters"]
    if skill.resources:
        parts.append(f"files {', '.join(skill.resources)}")
    if skill.tools:
        parts.append(f"tools {', '.join(tool.name for tool in skill.tools)}")
    return f"{skill.slug} {skill.version}: {'; '.join(parts)}"
