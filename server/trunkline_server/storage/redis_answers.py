"""Cached answers that all processes share, kept in Redis or Valkey: the `Shelf` port.

An answer is a string that goes by itself when it expires. It names the `root` of the clearings, a random word: whoever
finds no clearings makes a new root, and all answers of the old one count as gone. So a Redis that throws keys away, as
one with too little memory does, may forget an answer, but never that an answer was cleared.
"""

import base64
import secrets
from collections.abc import Sequence
from typing import Any, Final

from trunkline_server.core.cache import Clearing, Clearings, Kept, ShelfAway
from trunkline_server.storage.redis_scripts import OPERATION_S, RedisAway, RedisScripts, Script

ANSWER_PREFIX: Final = "trunkline:answer1:"  # The number is that of the format of what is kept.
CLEARINGS: Final = "trunkline:clearings1"
PROBE_KEY: Final = "trunkline:answer1:{probe}"
MICROS_PER_MS: Final = 1_000

# In the hash of clearings '' is the root and '#' the number of changes; any other field is a colon and an owner.
_ROOT: Final = """
local root = redis.call('HGET', KEYS[1], '')
if not root then
  root = ARGV[1]
  redis.call('HSET', KEYS[1], '', root)
end
local function cleared(owner)
  local found = redis.call('HGET', KEYS[1], ':' .. owner)
  return found and tonumber(string.match(found, '^%d+')) or 0
end
"""

# ARGV: a new root, the owner.
FIND: Final = Script(
    "-- trunkline answer find 1"
    + _ROOT
    + """
local value = redis.call('GET', KEYS[2])
if not value then return false end
local of, owner, kept, rest = string.match(value, '^(%S+) (%S+) (%d+) (.*)$')
if of ~= root or owner ~= ARGV[3] or tonumber(kept) <= cleared(ARGV[2]) then return false end
return kept .. ' ' .. rest
"""
)

# ARGV: a new root, the owner as a word, when it was kept, how long in milliseconds, the rest.
PUT: Final = Script(
    "-- trunkline answer put 1"
    + _ROOT
    + """
redis.call('SET', KEYS[2], table.concat({root, ARGV[2], ARGV[3], ARGV[5]}, ' '), 'PX', ARGV[4])
return 1
"""
)

# ARGV: a new root, the owner, an instant.
CLEAR: Final = Script(
    "-- trunkline answer clear 1"
    + _ROOT
    + """
local before, field = cleared(ARGV[2]), ':' .. ARGV[2]
if tonumber(ARGV[3]) > before then before = tonumber(ARGV[3]) end
local changes = redis.call('HINCRBY', KEYS[1], '#', 1)
redis.call('HSET', KEYS[1], field, string.format('%.0f %.0f', before, changes))
if KEYS[2] then redis.call('DEL', KEYS[2]) end
return 1
"""
)

# ARGV: a new root, the mark that is known.
CHANGES: Final = Script(
    "-- trunkline answer changes 1"
    + _ROOT
    + """
local mark = root .. '-' .. (redis.call('HGET', KEYS[1], '#') or '0')
if mark == ARGV[2] then return false end
local answer = {mark}
for _, item in ipairs(redis.call('HGETALL', KEYS[1])) do answer[#answer + 1] = item end
return answer
"""
)

PROBE: Final = Script(
    "-- trunkline answer probe 1\nredis.call('SET', KEYS[1], '1', 'PX', 1000)\nreturn 1"
)


class RedisAnswers:
    """Nothing takes longer than `operation_s`, whatever Redis does."""

    def __init__(self, url: str, *, operation_s: float = OPERATION_S) -> None:
        """Connects when it is first used, from inside an event loop.

        Raises:
            ValueError: the address is none.
        """
        self._scripts = RedisScripts(url, PROBE, PROBE_KEY, operation_s=operation_s)

    async def find(self, key: bytes, owner: str) -> Kept | None:
        """See `Shelf`."""
        value = await self._run(FIND, [CLEARINGS, _key(key)], [owner, _word(owner)])
        if not value:
            return None
        kept_us, expires_us, answer = _text(value).split(" ")
        return Kept(key, owner, base64.b64decode(answer), int(kept_us), int(expires_us))

    async def put(self, kept: Kept) -> None:
        """See `Shelf`."""
        life_ms = max(1, (kept.expires_us - kept.kept_us) // MICROS_PER_MS)
        rest = f"{kept.expires_us} {base64.b64encode(kept.answer).decode()}"
        await self._run(
            PUT,
            [CLEARINGS, _key(kept.key)],
            [_word(kept.owner), kept.kept_us, life_ms, rest],
        )

    async def drop(self, key: bytes, owner: str) -> None:
        """See `Shelf`."""
        await self._run(CLEAR, [CLEARINGS, _key(key)], [owner, 0])

    async def clear(self, owner: str, before_us: int) -> None:
        """See `Shelf`."""
        await self._run(CLEAR, [CLEARINGS], [owner, before_us])

    async def clearings(self, mark: str) -> Clearings | None:
        """See `Shelf`."""
        answer = await self._run(CHANGES, [CLEARINGS], [mark])
        if not answer:
            return None
        found, *items = map(_text, answer)
        owners = {}
        for field, value in zip(items[::2], items[1::2], strict=True):
            if field.startswith(":"):
                before, changes = value.split(" ")
                owners[field[1:]] = Clearing(int(before), int(changes))
        return Clearings(found, owners)

    async def count(self, owner: str, now_us: int) -> tuple[int, int] | None:
        """Redis would have to look at everything."""
        return None

    async def sweep(self, now_us: int) -> None:
        """What expires goes by itself."""

    async def close(self) -> None:
        """Let go of the connection."""
        await self._scripts.close()

    async def _run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[int | str]
    ) -> Any:
        try:
            return await self._scripts.run(script, keys, [secrets.token_hex(8), *arguments])
        except RedisAway as error:
            raise ShelfAway from error


def _key(key: bytes) -> str:
    return f"{ANSWER_PREFIX}{key.hex()}"


def _word(owner: str) -> str:
    """Without blanks."""
    return owner.encode().hex()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
