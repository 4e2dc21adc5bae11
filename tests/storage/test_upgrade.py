import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from tests.support.postgres import PASSWORD, Postgres
from trunkline_server.storage import upgrade as upgrade_module
from trunkline_server.storage.upgrade import (
    STEPS,
    UpgradeError,
    check,
    pending,
    sqlite_path,
    upgrade,
)

SECOND = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("CREATE TABLE more (id TEXT PRIMARY KEY)")
    op.execute("{last}")
"""


@pytest.fixture(scope="session")
def revisions() -> list[str]:
    """All that this program has, as alembic sees them."""
    config = Config()
    config.set_main_option("script_location", str(STEPS))
    config.set_main_option("path_separator", "os")
    steps = ScriptDirectory.from_config(config).walk_revisions()
    return [step.revision for step in steps][::-1]


def two_steps(folder: Path, last: str) -> Path:
    """The first step of this program, and one after it that ends with the statement `last`."""
    steps = folder / "100% steps"
    shutil.copytree(
        STEPS,
        steps,
        ignore=lambda _, names: {n for n in names if n > "0002"} - {"env.py", "versions"},
    )
    (steps / "versions" / "0002_more.py").write_text(SECOND.format(last=last))
    return steps


def run(url: str, sql: str, postgres: Postgres | None = None) -> list[tuple[object, ...]]:
    """One statement, past the program."""
    path = sqlite_path(url)
    if path is None:
        assert postgres is not None
        return postgres.execute(sql, url.rpartition("/")[2])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(sql).fetchall()


@pytest.fixture
def ask(request, empty_url):
    """Runs a statement in the database of `empty_url`, past the program."""
    postgres = None if sqlite_path(empty_url) else request.getfixturevalue("postgres")
    return lambda sql: run(empty_url, sql, postgres)


def test_an_upgrade_applies_what_is_missing_and_says_so_once(empty_url, revisions):
    assert pending(empty_url) == revisions
    assert upgrade(empty_url) == revisions
    assert pending(empty_url) == []
    assert upgrade(empty_url) == []
    check(empty_url)


def test_looking_at_what_is_missing_makes_nothing(tmp_path, revisions):
    assert pending(f"sqlite:{tmp_path / 'none.db'}") == revisions
    assert list(tmp_path.iterdir()) == []


def test_an_old_database_gets_only_what_it_lacks(empty_url, tmp_path):
    first = two_steps(tmp_path, "SELECT 1")
    (first / "versions" / "0002_more.py").rename(tmp_path / "0002_more.py")
    upgrade(empty_url, first)
    (tmp_path / "0002_more.py").rename(first / "versions" / "0002_more.py")

    with pytest.raises(UpgradeError, match="lacks 0002; run `trunkline db upgrade`"):
        check(empty_url, first)
    assert upgrade(empty_url, first) == ["0002"]
    check(empty_url, first)


def test_an_upgrade_that_fails_changes_nothing(empty_url, tmp_path, ask):
    steps = two_steps(tmp_path, "INSERT INTO nowhere VALUES (1)")

    with pytest.raises(UpgradeError, match="nowhere"):
        upgrade(empty_url, steps)

    assert pending(empty_url, steps) == ["0001", "0002"]
    with pytest.raises(Exception, match="accounts"):
        ask("SELECT * FROM accounts")


def test_a_database_of_a_newer_program_is_left_alone(empty_url, ask):
    upgrade(empty_url)
    ask("UPDATE alembic_version SET version_num = '9999'")

    for touch in (upgrade, pending, check):
        with pytest.raises(UpgradeError, match=r"9999.*newer"):
            touch(empty_url)


def test_upgrades_at_once_are_one_upgrade(empty_url, revisions):
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(upgrade, [empty_url] * 4))

    assert sorted(applied) == [[], [], [], revisions]


def test_both_kinds_of_database_have_the_same_columns(tmp_path, postgres):
    path = tmp_path / "trunkline.db"
    upgrade(f"sqlite:{path}")
    with closing(sqlite3.connect(path)) as db:
        in_sqlite = db.execute(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'"
        ).fetchall()

    in_postgres = postgres.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'",
        postgres.migrated().rpartition("/")[2],
    )

    assert sorted(in_postgres) == sorted(in_sqlite)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:trunkline.db", Path("trunkline.db")),
        ("sqlite:/var/lib/a b%20?.db", Path("/var/lib/a b%20?.db")),
        ("postgresql://host/db", None),
        ("postgres://host/db", None),
    ],
)
def test_a_url_names_a_file_or_a_server(url, path):
    assert sqlite_path(url) == path


@pytest.mark.parametrize(
    "url",
    ["", "sqlite:", "sqlite::memory:", "sqlite:///x.db", "sqlite:a\0b", "mysql://host/db", "x.db"],
)
def test_any_other_url_is_refused_with_an_example(url):
    with pytest.raises(UpgradeError, match=r"sqlite:PATH"):
        pending(url)


# SQLite


@contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_a_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "trunkline.db"
    with umask(0):
        upgrade(f"sqlite:{path}")
    made = path.stat().st_mode & 0o777
    path.chmod(0o644)

    upgrade(f"sqlite:{path}")

    assert (made, path.stat().st_mode & 0o777) == (0o600, 0o600)


def test_a_file_in_wal_mode_that_nobody_uses_is_upgraded(tmp_path):
    path = tmp_path / "trunkline.db"
    db = apsw.Connection(str(path))
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE before (x); INSERT INTO before VALUES (1)")
    saved = {
        name: path.with_name(name).read_bytes() for name in ("trunkline.db", "trunkline.db-wal")
    }
    db.close()
    for name, content in saved.items():  # As after a crash: some of it is in the journal alone.
        path.with_name(name).write_bytes(content)

    assert pending(f"sqlite:{path}") == upgrade(f"sqlite:{path}")

    assert run(f"sqlite:{path}", "SELECT x FROM before") == [(1,)]
    assert run(f"sqlite:{path}", "PRAGMA journal_mode") == [("delete",)]


USERS = {
    "server": """
import asyncio
from trunkline_server.storage.sqlite import SqliteStorage
storage = SqliteStorage(path)
asyncio.run(storage.start())
""",
    "other program": """
import apsw
db = apsw.Connection(path)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE other (x)")
""",
}


@contextmanager
def used_by(user: str, path: Path):
    """Another process that has the file open. Locks are between processes."""
    code = f"path = {str(path)!r}\n{USERS[user]}\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("user", USERS)
def test_a_file_in_use_is_not_upgraded_but_can_be_looked_at(tmp_path, monkeypatch, user):
    monkeypatch.setattr(upgrade_module, "FILE_S", 0.2)
    path = tmp_path / "trunkline.db"
    upgrade(f"sqlite:{path}")
    with used_by(user, path):
        with pytest.raises(UpgradeError, match="in use"):
            upgrade(f"sqlite:{path}")
        assert pending(f"sqlite:{path}") == []
    assert upgrade(f"sqlite:{path}") == []


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path):
    path = tmp_path / "trunkline.db"
    path.write_text("keep me" * 1000)

    for touch in (upgrade, pending):
        with pytest.raises(UpgradeError, match="no SQLite database"):
            touch(f"sqlite:{path}")

    assert path.read_text() == "keep me" * 1000


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UpgradeError, match=r"none/trunkline\.db: No such file"):
        upgrade(f"sqlite:{tmp_path}/none/trunkline.db")


# PostgreSQL


@pytest.mark.parametrize(
    "spoil",
    [
        lambda url: url.replace(PASSWORD, f"{PASSWORD}-not"),
        lambda url: url.replace(PASSWORD, f"{PASSWORD}/not"),
        lambda url: url.replace(":", f":{PASSWORD}"),
        lambda url: url.replace("127.0.0.1:", "127.0.0.1:1"),
        lambda url: f"{url}_none",
        lambda url: f"{url}?sslmode=never",
    ],
    ids=["password", "slash in it", "colons", "port", "database", "option"],
)
def test_what_is_wrong_is_said_without_the_password(postgres, spoil):
    for touch in (upgrade, pending, check):
        with pytest.raises(UpgradeError) as caught:
            touch(spoil(postgres.url()))
        assert PASSWORD not in str(caught.value)
        assert "database" in str(caught.value)


def test_a_frozen_server_is_given_up(postgres, monkeypatch):
    monkeypatch.setattr(upgrade_module, "CHECK_S", 0.3)
    url = postgres.database()
    postgres.freeze()
    try:
        with pytest.raises(UpgradeError, match="did not answer in time"):
            pending(url)
    finally:
        postgres.thaw()
    assert upgrade(url)


def test_a_file_whose_writer_was_killed_in_the_middle_can_be_looked_at(tmp_path, revisions):
    url = f"sqlite:{tmp_path / 'x.db'}"
    upgrade(url)
    # A transaction that has begun to write to the file itself, and never ends.
    killed = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = DELETE")
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("CREATE TABLE half AS WITH RECURSIVE n(i) AS"
           " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i, hex(randomblob(200)) AS x FROM n")
os.kill(os.getpid(), 9)
"""
    path = sqlite_path(url)
    assert path is not None
    subprocess.run([sys.executable, "-c", killed, str(path)], check=False)
    assert path.with_name(f"{path.name}-journal").exists()

    assert pending(url) == []

    assert ("half",) not in run(url, "SELECT name FROM sqlite_master")
