"""Keys from their making to their end, on both databases, and whatever looks like one and is none."""

import asyncio
import random
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from tests.accounts.everything import METHODS, Metadata, served, text_fields, with_text
from tests.accounts.process import process
from tests.edges.errors import reason_of
from tests.storage.conftest import opened
from tests.support.accounts import (
    ENVIRONMENT,
    Desk,
    account_sections,
    desk,
    new_sqlite,
)
from tests.support.postgres import Postgres
from tests.support.upstream import hello, upstream
from trunkline.v1.admin_service_pb2 import (
    CreateKeyRequest,
    ListAuditEventsRequest,
    ListKeysRequest,
    RevokeKeyRequest,
    RotateKeyRequest,
)
from trunkline.v1.catalog_service_pb2 import ListModelsRequest
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline_server.accounts.administration import Administration, NewKey
from trunkline_server.accounts.callers import MAX_REFUSED, Callers
from trunkline_server.accounts.keys import (
    ALPHABET,
    CHECK_CHARS,
    ID_CHARS,
    SECRET_CHARS,
    Token,
    mint,
    read_token,
)
from trunkline_server.core.errors import InvalidApiKey, NotFound
from trunkline_server.core.plans import Caller, Plan, Scope
from trunkline_server.core.transactions import MakeTransaction, Storage, T
from trunkline_server.storage.upgrade import sqlite_path

START_US: Final = 1_790_000_000_000_000
SECOND_US: Final = 1_000_000
PEPPER: Final = b"p" * 43
ADMIN: Final = Caller("root", "operators", scopes=frozenset(Scope))
REVOKED_WITHIN_S: Final = 1.0
LIMIT_S: Final = 20.0
REFUSED: Final = "INVALID_API_KEY"


@dataclass
class Counted:
    """A database that counts what it is asked to read."""

    storage: Storage
    reads: int = 0

    async def write(self, make: MakeTransaction[T]) -> T:
        return await self.storage.write(make)

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        self.reads += 1
        return await self.storage.read(make)


class AtOnce:
    """A database of SQLite's own library, asked without threads and syncs: for tests that ask very often."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)

    async def write(self, make: MakeTransaction[T]) -> T:
        return self._run(make)

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        return self._run(make)

    def close(self) -> None:
        self._db.close()

    def _run(self, make: MakeTransaction[T]) -> T:
        transaction = make()
        rows: list[Any] | None = None
        self._db.execute("BEGIN")
        try:
            while True:
                # Nothing can be sent to what has not begun.
                statement = next(transaction) if rows is None else transaction.send(rows)
                sql = re.sub(r"\$(\d+)", r"?\1", statement.sql)
                rows = self._db.execute(sql, statement.values).fetchall()
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            self._db.execute("COMMIT")


@dataclass
class Keyring:
    """Who makes keys and who knows them, over one database, on a clock that the test sets.

    Nobody polls here: each key that is not remembered, or no longer for certain, is a read.
    """

    storage: Counted
    now_us: int = START_US
    admin: Administration = field(init=False)
    callers: Callers = field(init=False)

    def __post_init__(self) -> None:
        self.admin = Administration(
            self.storage,
            pepper=PEPPER,
            environment="test",
            plans=("default", "pro"),
            random=random.SystemRandom().randrange,
            now_us=lambda: self.now_us,
        )
        self.callers = self.new_callers()

    def new_callers(self) -> Callers:
        """As of another process."""
        return Callers(
            static=(),
            plans={"pro": Plan("pro")},
            storage=self.storage,
            pepper=PEPPER,
            now_us=lambda: self.now_us,
        )

    async def new_key(self, lifetime_us: int | None = None) -> Token:
        expires_us = None if lifetime_us is None else self.now_us + lifetime_us
        new = NewKey("acme", "", "", "pro", (), expires_us)
        _, token = await self.admin.create_key(new, ADMIN, "req-1")
        return token

    async def rotate(self, key_id: str, overlap_us: int) -> Token:
        _, token = await self.admin.rotate_key(key_id, overlap_us, ADMIN, "req-2")
        return token

    async def accepts(self, text: object) -> bool:
        try:
            caller = await self.callers.authenticate(f"Bearer {text}")
        except InvalidApiKey:
            return False
        assert (caller.organization, caller.plan.id) == ("acme", "pro")
        return True


@pytest.fixture
async def keyring(url: str) -> AsyncIterator[Keyring]:
    async with opened(url) as storage:
        yield Keyring(Counted(storage))


@pytest.fixture
async def quick_keyring(tmp_path: Path) -> AsyncIterator[Keyring]:
    """For what says nothing of the database."""
    path = sqlite_path(new_sqlite(tmp_path))
    assert path is not None
    storage = AtOnce(path)
    yield Keyring(Counted(storage))
    storage.close()


@asynccontextmanager
async def at_desk(url: str) -> AsyncIterator[Desk]:
    async with upstream(hello) as provider, desk(url, provider.url) as found:
        yield found


async def outcome(found: Desk, key: Metadata) -> str:
    """What becomes of a call with this key: OK, or why not."""
    try:
        await CatalogServiceStub(found.channel).ListModels(ListModelsRequest(), metadata=key)
    except grpc.aio.AioRpcError as error:
        return reason_of(error)[1]
    return "OK"


async def refused(found: Desk, *keys: Metadata) -> None:
    """Wait until nobody is let in with any of these."""
    for key in keys:
        while await outcome(found, key) != REFUSED:  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.01)


async def test_a_key_is_made_used_listed_rotated_and_revoked(url):
    async with at_desk(url) as found:
        made = await found.admin.CreateKey(
            CreateKeyRequest(organization="acme", project="shop", name="Till 1", plan="prepaid"),
            metadata=found.root,
        )
        first = (("authorization", f"Bearer {made.secret}"),)
        in_use = await outcome(found, first)
        listed = await found.admin.ListKeys(
            ListKeysRequest(organization="acme"), metadata=found.root
        )
        rotate = RotateKeyRequest(key_id=made.key.id)
        rotate.overlap.FromSeconds(3600)
        rotated = await found.admin.RotateKey(rotate, metadata=found.root)
        second = (("authorization", f"Bearer {rotated.secret}"),)
        in_overlap = [await outcome(found, key) for key in (first, second)]
        revoked = await found.admin.RevokeKey(
            RevokeKeyRequest(key_id=made.key.id), metadata=found.root
        )
        async with asyncio.timeout(REVOKED_WITHIN_S):
            await refused(found, first, second)
        audit = await found.admin.ListAuditEvents(
            ListAuditEventsRequest(organization="acme"), metadata=found.root
        )

    assert in_use == "OK"
    assert [key.id for key in listed.keys] == [made.key.id]
    assert made.secret.startswith(f"gw_live_{made.key.id}_")
    assert (made.key.project, made.key.name, made.key.plan) == ("shop", "Till 1", "prepaid")
    assert list(made.key.scopes) == ["complete", "read"]
    assert not made.key.HasField("expire_time")
    assert rotated.key.id == made.key.id
    assert rotated.secret != made.secret
    assert in_overlap == ["OK", "OK"]
    assert revoked.key.HasField("revoke_time")
    told = [(event.action, event.actor, event.entity_id) for event in audit.events]
    assert told == [
        ("key.revoked", "root", made.key.id),
        ("key.rotated", "root", made.key.id),
        ("key.created", "root", made.key.id),
    ]
    # Shown once: nothing that is told later has any of it.
    for secret in (made.secret, rotated.secret):
        hidden = secret.split("_")[3].encode()
        for answer in (made.key, rotated.key, revoked, listed, audit):
            assert hidden not in answer.SerializeToString()


async def test_pages_hold_each_key_of_an_organisation_once(url):
    async with at_desk(url) as found:
        for number in range(10):
            name = "acme" if number < 7 else "other"
            await found.new_key(name, name=f"key {number}")
        whole = await found.admin.ListKeys(
            ListKeysRequest(organization="acme"), metadata=found.root
        )
        pages = []
        token = ""
        while True:
            page = await found.admin.ListKeys(
                ListKeysRequest(organization="acme", page_size=3, page_token=token),
                metadata=found.root,
            )
            pages.append([key.id for key in page.keys])
            token = page.next_page_token
            if not token:
                break
        everyone = await found.admin.ListKeys(ListKeysRequest(), metadata=found.root)

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [id_ for page in pages for id_ in page] == [key.id for key in whole.keys]
    assert {key.organization for key in whole.keys} == {"acme"}
    assert Counter(key.organization for key in everyone.keys) == {"acme": 7, "other": 3}


async def test_the_old_secret_counts_until_the_overlap_ends(keyring):
    old = await keyring.new_key()
    assert await keyring.accepts(old)

    new = await keyring.rotate(old.id, 60 * SECOND_US)

    assert (old.id, old.secret == new.secret) == (new.id, False)
    assert [await keyring.accepts(key) for key in (old, new)] == [True, True]
    keyring.now_us += 60 * SECOND_US - 1
    assert [await keyring.accepts(key) for key in (old, new)] == [True, True]
    keyring.now_us += 1
    assert [await keyring.accepts(key) for key in (old, new)] == [False, True]
    keyring.callers = keyring.new_callers()  # Nor where it was never remembered.
    assert [await keyring.accepts(key) for key in (old, new)] == [False, True]


async def test_without_overlap_the_old_secret_ends_at_once(keyring):
    old = await keyring.new_key()

    new = await keyring.rotate(old.id, 0)

    assert [await keyring.accepts(key) for key in (old, new)] == [False, True]


async def test_of_two_rotations_only_the_secret_before_the_last_overlaps(keyring):
    first = await keyring.new_key()

    second = await keyring.rotate(first.id, 60 * SECOND_US)
    third = await keyring.rotate(first.id, 60 * SECOND_US)

    accepted = [await keyring.accepts(key) for key in (first, second, third)]
    assert accepted == [False, True, True]


async def test_a_rotated_key_is_served_from_memory_too(keyring):
    old = await keyring.new_key()
    new = await keyring.rotate(old.id, 60 * SECOND_US)
    assert [await keyring.accepts(key) for key in (old, new)] == [True, True]
    asked = keyring.storage.reads

    for _ in range(50):
        assert [await keyring.accepts(key) for key in (old, new)] == [True, True]

    assert keyring.storage.reads == asked


async def test_a_key_ends_when_it_expires_although_it_is_remembered(keyring):
    key = await keyring.new_key(lifetime_us=SECOND_US)
    assert await keyring.accepts(key)

    keyring.now_us += SECOND_US - 1
    before = await keyring.accepts(key)
    keyring.now_us += 1
    after = await keyring.accepts(key)
    keyring.callers = keyring.new_callers()
    elsewhere = await keyring.accepts(key)

    assert (before, after, elsewhere) == (True, False, False)


async def test_a_key_that_has_ended_can_not_be_rotated(keyring):
    expired = await keyring.new_key(lifetime_us=SECOND_US)
    revoked = await keyring.new_key()
    await keyring.admin.revoke_key(revoked.id, ADMIN, "req-3")
    keyring.now_us += SECOND_US

    for key in (expired, revoked):
        with pytest.raises(NotFound):
            await keyring.rotate(key.id, 60 * SECOND_US)
        assert not await keyring.accepts(key)


async def test_an_overlap_is_no_way_around_a_revocation(keyring):
    old = await keyring.new_key()
    new = await keyring.rotate(old.id, 60 * SECOND_US)

    await keyring.admin.revoke_key(old.id, ADMIN, "req-3")

    keyring.callers = keyring.new_callers()
    assert [await keyring.accepts(key) for key in (old, new)] == [False, False]


async def test_when_a_key_was_last_used_is_told_after_a_while(url):
    async with at_desk(url) as found:
        key = await found.new_key()
        assert await outcome(found, key) == "OK"

    async with at_desk(url) as found:  # What stops writes what it knows.
        listed = await found.admin.ListKeys(ListKeysRequest(), metadata=found.root)

    assert listed.keys[0].last_use_time.seconds >= listed.keys[0].create_time.seconds > 0


# Revocation


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """A database with the schema, for several servers."""
    return postgres.migrated()


def elsewhere_sections(upstream_url: str) -> dict[str, Any]:
    """Settings of another server, which has the address of the database in its environment."""
    accounts = {"database_url_env": "DB", "pepper_env": "PEPPER"}
    return account_sections("", upstream_url, accounts=accounts)


NEVER_S: Final = float("inf")


async def last_accepted_s(address: str, key: Metadata) -> float:
    """When it was last let in, by the loop's clock; asks for as long as it is. Never: other words kept it out."""
    clock = asyncio.get_running_loop().time
    accepted_s = 0.0
    async with grpc.aio.insecure_channel(address) as channel:
        stub = CatalogServiceStub(channel)
        while True:
            began_s = clock()
            try:
                await stub.ListModels(ListModelsRequest(), metadata=key, timeout=LIMIT_S)
            except grpc.aio.AioRpcError as error:
                return accepted_s if reason_of(error)[1] == REFUSED else NEVER_S
            accepted_s = began_s
            await asyncio.sleep(0.002)


async def test_a_revoked_key_is_refused_everywhere_within_a_second(postgres_url, tmp_path):
    url = postgres_url
    async with (
        upstream(hello) as provider,
        desk(url, provider.url) as found,
        process(tmp_path, {**ENVIRONMENT, "DB": url}, **elsewhere_sections(provider.url)) as second,
    ):
        clock = asyncio.get_running_loop().time
        key = await found.new_key()
        (key_listed,) = (await found.admin.ListKeys(ListKeysRequest(), metadata=found.root)).keys
        asking = [
            asyncio.create_task(last_accepted_s(address, key))
            for address in (found.service.grpc_address, second.grpc_address) * 3
        ]
        await asyncio.sleep(0.7)  # Known and remembered everywhere by now.
        early = [task for task in asking if task.done()]

        await found.admin.RevokeKey(RevokeKeyRequest(key_id=key_listed.id), metadata=found.root)

        revoked_s = clock()
        async with asyncio.timeout(LIMIT_S):
            last_s = max(await asyncio.gather(*asking))
    assert early == []
    assert last_s - revoked_s <= REVOKED_WITHIN_S


# What looks like a key


def changed(token: Token, **parts: str) -> str:
    """The same with other parts, and the check that fits."""
    words = {"environment": token.environment, "id": token.id, "secret": token.secret, **parts}
    return str(Token(**words))


LOOKALIKES: Final = {
    "0": "O\u0660\uff10",
    "1": "lI\u0661\uff11",
    "o": "0\u043e\u03bf\uff4f",
    "a": "\u0430\u00e4\uff41",
    "e": "\u0435\u00e9\uff45",
    "s": "\u0455\u017f\uff53",
    "k": "\u212a\uff4b",
    "_": "-\uff3f\u203f",
}
BLANKS: Final = " \t\r\n\v\f\x1c\x85\xa0\u2003\u200b\u2028\ufeff\0"


def letters(random_: random.Random, count: int) -> str:
    return "".join(random_.choices(ALPHABET, k=count))


def mutations(token: Token, other: Token, count: int, seed: int) -> Iterator[str]:
    """Texts near to a good key that are not it."""
    random_ = random.Random(seed)
    good = str(token)
    at = random_.randrange

    def one_bit() -> str:
        data = bytearray(good.encode())
        data[at(len(data))] ^= 1 << at(8)
        return data.decode("latin-1")

    def one_letter() -> str:
        place = at(len(good))
        return good[:place] + random_.choice(ALPHABET) + good[place + 1 :]

    def other_case() -> str:
        return "".join(random_.choice((c.upper(), c.lower())) for c in good)

    def blank_inside() -> str:
        place = 1 + at(len(good) - 1)
        return good[:place] + random_.choice(BLANKS) + good[place:]

    def blank_around() -> str:
        blank = random_.choice(BLANKS[2:]) * (1 + at(3))
        return blank + good if at(2) else good + blank

    def lookalike() -> str:
        place = random_.choice([i for i, c in enumerate(good) if c in LOOKALIKES])
        return good[:place] + random_.choice(LOOKALIKES[good[place]]) + good[place + 1 :]

    def secret_with_check() -> str:
        place = at(SECRET_CHARS)
        secret = token.secret[:place] + random_.choice(ALPHABET) + token.secret[place + 1 :]
        return changed(token, secret=secret)

    def id_with_check() -> str:
        place = at(ID_CHARS)
        return changed(
            token, id=token.id[:place] + random_.choice(ALPHABET) + token.id[place + 1 :]
        )

    makers = (
        one_bit,
        one_letter,
        other_case,
        blank_inside,
        blank_around,
        lookalike,
        lambda: good[: at(len(good))],
        lambda: good[1 + at(len(good) - 1) :],
        lambda: good + letters(random_, 1 + at(20)),
        lambda: letters(random_, 1 + at(20)) + good,
        lambda: good * (2 + at(3)),
        lambda: good.replace("_", random_.choice(("", "__", "-", "."))),
        lambda: good[:-CHECK_CHARS] + letters(random_, CHECK_CHARS),
        lambda: good.swapcase(),
        lambda: good.encode("utf-16").decode("latin-1"),
        lambda: f'"{good}"',
        lambda: "".join(f"%{ord(c):02x}" for c in good),
        lambda: letters(random_, len(good)),
        lambda: f"gw_test_{token.id}_{letters(random_, SECRET_CHARS)}_{letters(random_, 6)}",
    )
    # These have a good check, so that the database is asked.
    checked = (
        secret_with_check,
        id_with_check,
        lambda: changed(token, secret=letters(random_, SECRET_CHARS)),
        lambda: changed(token, id=letters(random_, ID_CHARS)),
        lambda: changed(token, id=other.id),
        lambda: changed(token, secret=other.secret),
        lambda: changed(token, environment=random_.choice(("live", "t", "tes", "test1", "0"))),
    )
    made = 0
    while made < count:
        text = random_.choice(checked if at(50) == 0 else makers)()
        if text != good:
            made += 1
            yield text


@pytest.mark.parametrize(
    "count", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)], ids="{:,}".format
)
async def test_nothing_near_a_good_key_is_taken_for_it(quick_keyring, count):
    keyring = quick_keyring
    token, other = await keyring.new_key(), await keyring.new_key()
    accepted = []
    with_check = 0

    for text in mutations(token, other, count, seed=count):
        if read_token(text) is not None:
            with_check += 1
        if await keyring.accepts(text):
            accepted.append(text)

    assert accepted == []
    assert with_check > count // 100
    # Noise never came to the database; of the others some came again while they were remembered.
    assert 0 < keyring.storage.reads <= with_check
    assert await keyring.accepts(token)
    assert await keyring.accepts(other)


async def test_what_has_a_bad_check_never_reaches_the_database(keyring):
    token = await keyring.new_key()
    good = str(token)
    asked = keyring.storage.reads

    for text in ("", "gw", good[:-1], good + "0", good[:-1] + ("0" if good[-1] != "0" else "1")):
        assert not await keyring.accepts(text)

    assert keyring.storage.reads == asked


async def test_blanks_around_a_key_that_http_allows_do_not_count(quick_keyring):
    token = await quick_keyring.new_key()

    assert await quick_keyring.accepts(f" \t{token} \t")


CRYPTO: Final = ("digest", "compare", "sha", "hmac", "crc")


async def work(callers: Callers, text: str) -> Counter[str]:
    """The calls into the libraries of hashes that it takes to refuse this."""
    calls: Counter[str] = Counter()

    def note(_: Any, event: str, function: Any) -> None:
        name = getattr(function, "__name__", "")
        if event == "c_call" and any(word in name for word in CRYPTO):
            calls[name] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        with pytest.raises(InvalidApiKey):
            await callers.authenticate(f"Bearer {text}")
    finally:
        sys.setprofile(before)
    return calls


async def test_an_unknown_id_is_as_much_work_as_a_wrong_secret(quick_keyring):
    """The same hashes and comparisons, so that the time it takes does not tell which ids there are."""
    keyring = quick_keyring
    token = await keyring.new_key()
    rotated = await keyring.new_key()
    await keyring.rotate(rotated.id, 60 * SECOND_US)
    wrong = letters(random.Random(1), SECRET_CHARS)

    known = await work(keyring.callers, changed(token, secret=wrong))
    overlapping = await work(keyring.callers, changed(rotated, secret=wrong))
    unknown = await work(keyring.callers, changed(token, id="0" * ID_CHARS, secret=wrong))

    assert known == overlapping == unknown
    assert known["hmac_digest"] == 1
    assert sum(count for name, count in known.items() if "compare_digest" in name) == 2


async def test_guesses_push_no_good_key_out_of_memory_and_are_forgotten_themselves(quick_keyring):
    keyring = quick_keyring
    random_ = random.Random(2)
    token = await keyring.new_key()
    guesses = [str(mint("test", random_.randrange)) for _ in range(MAX_REFUSED + 1)]
    assert await keyring.accepts(token)

    for guess in guesses:
        assert not await keyring.accepts(guess)

    asked = keyring.storage.reads
    assert asked == 1 + len(guesses)
    assert await keyring.accepts(token)
    assert keyring.storage.reads == asked
    # The one that was remembered last is, and the first is not any more.
    assert not await keyring.accepts(guesses[-1])
    assert keyring.storage.reads == asked
    assert not await keyring.accepts(guesses[0])
    assert keyring.storage.reads == asked + 1


# Text that would like to be a statement

HOSTILE: Final = (
    "'; DROP TABLE keys; --",
    "a\0b",
    "acme' UNION SELECT secret_hash FROM keys --",
    "%",
    "$1",
    "\U0010ffff\u202e",
    "' OR '1'='1",
    '" OR ""="',
    "1); DELETE FROM audit; --",
    "?1",
    ":id",
    "_" * 300,
    "\\",
    "\0",
    "E'\\x27'",
    "/*",
    "\u2019; DROP TABLE keys; \u2014",
    "x" * 20_000,
)
# These have the same fields as CompleteUnary: only the long version asks all three.
ALIKE: Final = ("CompletionService/Complete", "CompletionService/PreviewRoute")
SURE: Final = {  # What may become of it. Nothing that is a fault of ours.
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}


@pytest.mark.parametrize(
    "texts", [HOSTILE[:3], pytest.param(HOSTILE, marks=pytest.mark.slow)], ids=["some", "all"]
)
async def test_text_is_never_a_statement_in_whichever_field_it_comes(url, texts):
    """Of each request each field that holds text, with much that has ever been tried in it."""
    wrong = []
    tried = 0
    async with at_desk(url) as found:
        key = await found.new_key("bank")
        await found.grant(1_000, "bank")
        spare = await found.admin.CreateKey(
            CreateKeyRequest(organization="spare"), metadata=found.root
        )
        asked = served(spare.key.id)
        for method in METHODS:
            if method.name not in asked or (len(texts) < len(HOSTILE) and method.name in ALIKE):
                continue
            for path in text_fields(method.request_type):
                for text in texts:
                    tried += 1
                    request = with_text(method.request_type, path, text, asked[method.name])
                    answer = await method.call(found.channel, found.root, request)
                    if answer.code not in SURE:
                        wrong.append((method.name, path, text[:32], answer.code, answer.reason))
        for text in texts:
            sent = text.encode("ascii", "replace").decode().replace("\0", "?")[:4_000]
            assert await outcome(found, (("authorization", f"Bearer {sent}"),)) == REFUSED

        still = await found.balance("bank")
        assert await outcome(found, key) == "OK"
        keys = await found.admin.ListKeys(ListKeysRequest(organization="bank"), metadata=found.root)
    assert wrong == []
    assert tried > 100 * len(texts)
    assert (still.available_nanos, len(keys.keys)) == (1_000, 1)
