"""Which skills an owner has installed, in the database: a row for each owner.

Every change has a number, one more than the last, so that whoever knows of the changes up to a number asks for those
after it. Transactions that write are run one after the other by every backend, so numbers appear in their order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from trunkline_server.core.errors import InvalidRequest, NotFound
from trunkline_server.core.transactions import Row, Statement, Transaction

MAX_INSTALLED: Final = 100  # Of one owner.
PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Installed:
    """What one owner has, in the order in which it was installed, since the change of this number."""

    owner: str
    slugs: tuple[str, ...] = ()
    number: int = 0


def changes(after: int) -> Transaction[list[Installed]]:
    """All owners whose skills have changed since, the latest last."""
    found: list[Installed] = []
    while True:
        rows = yield Statement(
            "SELECT owner, slugs, changed FROM installed_skills WHERE changed > $1"
            " ORDER BY changed LIMIT $2",
            (after, PAGE),
        )
        found += map(_installed, rows)
        if len(rows) < PAGE:
            return found
        after = found[-1].number


def install(owner: str, slug: str) -> Transaction[Installed]:
    """Add one; nothing changes where it is there. Raises: InvalidRequest."""

    def added(slugs: Sequence[str]) -> Sequence[str]:
        if slug in slugs:
            return slugs
        if len(slugs) >= MAX_INSTALLED:
            raise InvalidRequest("slug", f"{MAX_INSTALLED} skills are installed already")
        return [*slugs, slug]

    return _change(owner, added)


def uninstall(owner: str, slug: str) -> Transaction[Installed]:
    """Take one away. Raises: NotFound."""

    def removed(slugs: Sequence[str]) -> Sequence[str]:
        if slug not in slugs:
            raise NotFound("no skill that is installed has this slug")
        return [known for known in slugs if known != slug]

    return _change(owner, removed)


def _change(
    owner: str, changed: Callable[[Sequence[str]], Sequence[str]]
) -> Transaction[Installed]:
    rows = yield Statement(
        "SELECT owner, slugs, changed FROM installed_skills WHERE owner = $1", (owner,)
    )
    before = _installed(rows[0]) if rows else Installed(owner)
    slugs = tuple(changed(before.slugs))
    if slugs == before.slugs:
        return before
    rows = yield Statement(
        "INSERT INTO installed_skills (owner, slugs, changed)"
        " VALUES ($1, $2, (SELECT COALESCE(MAX(changed), 0) + 1 FROM installed_skills))"
        " ON CONFLICT (owner) DO UPDATE SET slugs = excluded.slugs, changed = excluded.changed"
        " RETURNING owner, slugs, changed",
        (owner, " ".join(slugs)),
    )
    return _installed(rows[0])


def _installed(row: Row) -> Installed:
    owner, slugs, number = row
    return Installed(owner, tuple(slugs.split()), number)
