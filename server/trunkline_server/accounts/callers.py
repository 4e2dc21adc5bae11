"""Who a key belongs to, from memory.

Keys in the database are remembered once they were used. What is remembered counts for as long as the database said,
less than `STALE_S` ago, that no key has changed since; it is asked so every `POLL_S`, by one query for all keys. So a
key that was revoked anywhere is refused everywhere within a second, and a request with a known key waits for nothing.

While the database is away nothing is known after that second. Then callers are told to come back, never that their key
is wrong.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from trunkline_server.accounts import keys
from trunkline_server.accounts.keys import MAX_TOUCHED, Key, Token
from trunkline_server.core.errors import InvalidApiKey, StorageUnavailable
from trunkline_server.core.plans import ANONYMOUS, DEFAULT, USER_SCOPES, Caller, Plan, Scope
from trunkline_server.core.pressure import Criticality
from trunkline_server.core.transactions import Storage

POLL_S: Final = 0.25
STALE_S: Final = (
    0.9  # Less than the second that is promised, by what a poll may take to be noticed.
)
MAX_REMEMBERED: Final = 50_000
MAX_REFUSED: Final = 10_000  # Of wrong keys; beside the good ones, which guesses can't push out.
MAX_AUTHORIZATION_CHARS: Final = 4096
SHARED_S: Final = 0.25  # Who comes so soon after a look for the same key began waits for that one.
MAX_LOOKS: Final = 16  # At a time, so that guesses don't stand in the way of asking for changes.
TURN_S: Final = 1.0  # Who waits that long for a turn is told to come back.
TOUCH_S: Final = 30.0  # When a key was last used is written this often.

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StaticKey:
    """A key of the configuration. The secret is shown nowhere."""

    id: str
    secret: str = field(repr=False)
    criticality: Criticality | None = None
    organization: str = ""
    project: str = ""
    plan: str = ""
    scopes: frozenset[Scope] = USER_SCOPES


@dataclass(frozen=True, slots=True)
class _Known:
    """A key as it was found. `until_us`: what was sent is its former secret, and counts for so long."""

    key: Key
    caller: Caller
    until_us: int | None

    def is_good(self, now_us: int) -> bool:
        return self.key.is_alive(now_us) and (self.until_us is None or now_us < self.until_us)


@dataclass(frozen=True, slots=True)
class _Look:
    """A look for one key that is under way, for all who came with it."""

    began_s: float
    task: asyncio.Task[_Known | None]


class Callers:
    """All who may ask: static keys, those of a database if there is one, and everyone where there is neither.

    Args:
        now_us: microseconds since 1970.
    """

    def __init__(
        self,
        *,
        static: Sequence[StaticKey],
        plans: Mapping[str, Plan],
        storage: Storage | None,
        pepper: bytes,
        now_us: Callable[[], int],
    ) -> None:
        self._plans = plans
        self._storage = storage
        self._pepper = pepper
        self._now_us = now_us
        # Found by hash, so that the time it takes tells nothing about how much of a guess was right.
        self._static = {
            _digest(key.secret): (self._static_caller(key), _digest(key.secret)) for key in static
        }
        self._anonymous = self._caller(ANONYMOUS, "", "", ANONYMOUS, USER_SCOPES)
        self._is_open = not static and storage is None
        self._generation = -1
        self._fresh_until_s = -1.0
        # By the hash of all that was sent.
        self._known: dict[bytes, _Known] = {}
        self._refused: set[bytes] = set()
        self._looks: dict[bytes, _Look] = {}
        self._turns = asyncio.Semaphore(MAX_LOOKS)
        self._used: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask the database for changes."""
        if self._storage is not None:
            self._task = asyncio.get_running_loop().create_task(self._watch(self._storage))

    async def close(self) -> None:
        """Stop, and write when keys were last used."""
        looks = [look.task for look in self._looks.values()]
        for looking in looks:
            looking.cancel()
        if looks:
            await asyncio.wait(looks)
        task, self._task = self._task, None
        if task is not None and self._storage is not None:
            task.cancel()
            await asyncio.wait([task])
            with suppress(StorageUnavailable):
                await self._touch(self._storage)

    def at_hand(self, authorization: str) -> Caller | None:
        """The caller, if that is known without asking the database; None also for a wrong key."""
        if self._is_open:
            return self._anonymous
        digest = _token_digest(authorization)
        found = None if digest is None else self._static.get(digest)
        if found is not None:
            return found[0]
        known = None if digest is None else self._known.get(digest)
        return known.caller if known is not None else None

    async def authenticate(self, authorization: str) -> Caller:
        """The caller that an Authorization value stands for; empty where none was sent.

        Raises:
            InvalidApiKey, StorageUnavailable.
        """
        if self._is_open:
            return self._anonymous
        digest = _token_digest(authorization)
        if digest is None:
            raise InvalidApiKey
        static = self._static.get(digest)
        if static is not None and hmac.compare_digest(static[1], digest):
            return static[0]
        if self._storage is None:
            raise InvalidApiKey
        known = self._known.get(digest)
        is_fresh = asyncio.get_running_loop().time() < self._fresh_until_s
        if not is_fresh or (known is None and digest not in self._refused):
            known = await self._look_up(self._storage, authorization, digest)
        now_us = self._now_us()
        if known is None or not known.is_good(now_us):
            raise InvalidApiKey
        self._used[known.key.id] = now_us
        return known.caller

    async def of_key(self, key_id: str) -> Caller:
        """The caller that a key belongs to which was good once, for work that outlives the call it was asked in.

        Raises:
            InvalidApiKey: it is gone, revoked or expired.
            StorageUnavailable.
        """
        if self._is_open and key_id == ANONYMOUS:
            return self._anonymous
        for caller, _ in self._static.values():
            if caller.key_id == key_id:
                return caller
        if self._storage is None:
            raise InvalidApiKey
        _, key = await self._storage.read(lambda: keys.find(key_id), is_short=True)
        if key is None or not key.is_alive(self._now_us()):
            raise InvalidApiKey
        return self._caller(key.id, key.organization, key.project, key.plan, key.scopes)

    async def _look_up(self, storage: Storage, authorization: str, digest: bytes) -> _Known | None:
        token = keys.read_token(_secret(authorization))
        if token is None:
            return None  # Noise costs nothing to tell again.
        loop = asyncio.get_running_loop()
        look = self._looks.get(digest)
        if look is None or look.began_s + SHARED_S < loop.time():
            task = loop.create_task(self._look(storage, token, digest))
            look = self._looks[digest] = _Look(loop.time(), task)
            task.add_done_callback(partial(self._looked, digest))
        # A caller who leaves does not end it for the others.
        return await asyncio.shield(look.task)

    def _looked(self, digest: bytes, task: asyncio.Task[_Known | None]) -> None:
        look = self._looks.get(digest)
        if look is not None and look.task is task:
            del self._looks[digest]
        if not task.cancelled():
            task.exception()  # So that nothing is logged where everyone has left.

    async def _look(self, storage: Storage, token: Token, digest: bytes) -> _Known | None:
        try:
            async with asyncio.timeout(TURN_S):
                await self._turns.acquire()
        except TimeoutError as error:
            raise StorageUnavailable(retry_after_s=TURN_S) from error
        try:
            return await self._find(storage, token, digest)
        finally:
            self._turns.release()

    async def _find(self, storage: Storage, token: Token, digest: bytes) -> _Known | None:
        started_s = asyncio.get_running_loop().time()
        generation, key = await storage.read(lambda: keys.find(token.id), is_short=True)
        self._hear(generation, started_s)
        secret_hash = keys.secret_hash(self._pepper, token)
        # The same work for an id that is not there.
        is_accepted = (key or keys.NOBODY).accepts(secret_hash, self._now_us())
        known = None
        if key is not None and is_accepted:
            caller = self._caller(key.id, key.organization, key.project, key.plan, key.scopes)
            until_us = None if key.is_current(secret_hash) else key.former_until_us
            known = _Known(key, caller, until_us)
        if generation == self._generation:
            self._remember(digest, known)
        return known

    def _remember(self, digest: bytes, known: _Known | None) -> None:
        if known is None:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            self._refused.add(digest)
            return
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[digest] = known

    def _hear(self, generation: int, started_s: float) -> None:
        """The database has said, no earlier than `started_s`, how many changes there were."""
        if generation > self._generation:
            self._generation = generation
            self._known.clear()
            self._refused.clear()
        if generation == self._generation:
            self._fresh_until_s = max(self._fresh_until_s, started_s + STALE_S)

    async def _watch(self, storage: Storage) -> None:
        clock = asyncio.get_running_loop().time
        is_away = False
        touched_s = clock()
        while True:
            started_s = clock()
            try:
                self._hear(await storage.read(keys.generation, is_short=True), started_s)
                if started_s - touched_s >= TOUCH_S:
                    touched_s = started_s
                    await self._touch(storage)
                if is_away:
                    log.info("keys_known_again")
                is_away = False
            except StorageUnavailable:
                if not is_away:
                    log.warning("keys_unknown")
                is_away = True
            await asyncio.sleep(max(0.0, started_s + POLL_S - clock()))

    async def _touch(self, storage: Storage) -> None:
        used, self._used = sorted(self._used.items()), {}
        for start in range(0, len(used), MAX_TOUCHED):
            some = used[start : start + MAX_TOUCHED]
            await storage.write(partial(keys.touch, some))

    def _static_caller(self, key: StaticKey) -> Caller:
        organization = key.organization or key.id
        caller = self._caller(key.id, organization, key.project, key.plan, key.scopes)
        if key.criticality is None:
            return caller
        return Caller(
            caller.key_id,
            caller.organization,
            caller.project,
            caller.plan,
            caller.scopes,
            key.criticality,
        )

    def _caller(
        self, key_id: str, organization: str, project: str, plan: str, scopes: frozenset[Scope]
    ) -> Caller:
        found = self._plans.get(plan) or self._plans.get(DEFAULT) or Plan(plan or DEFAULT)
        return Caller(key_id, organization, project, found, scopes, found.criticality)


def _token_digest(authorization: str) -> bytes | None:
    scheme, _, _ = authorization.partition(" ")
    if scheme.lower() != "bearer" or len(authorization) > MAX_AUTHORIZATION_CHARS:
        return None
    return _digest(_secret(authorization))


def _secret(authorization: str) -> str:
    """What follows the scheme, without the blanks that HTTP allows around it. What Unicode calls blank is none here."""
    return authorization.partition(" ")[2].strip(" \t")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
