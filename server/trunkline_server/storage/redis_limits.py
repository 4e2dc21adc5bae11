"""Limits that all processes share, kept in Redis or Valkey.

A bucket is a string: the instant in microseconds, and the time until the bucket is full, as whole microseconds and a
remainder in parts of `drain` (see `core.gcra`): in doubles, which is what Lua has, that is exact where the level itself
may not be. Leases are a sorted set of holders by expiry; a member without a name is the instant of the last look. Time
is the server's, so processes need not agree on theirs; what a step of it does is said in `core.gcra`, and leases keep
their time over a step back as well.

While Redis is away, every process grants its share of each limit from memory. It knows where the buckets stood, for it
keeps the last level it was told; and when Redis is back it brings along what it granted meanwhile. So an outage is no
way to a second burst.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

from trunkline_server.core import gcra
from trunkline_server.core.limits import MAX_PROCESSES, Demand, Limit, Verdict, verdict_of
from trunkline_server.storage.memory_limits import MAX_BUCKETS, MemoryLimits, lease_time_us
from trunkline_server.storage.redis_scripts import OPERATION_S, RedisAway, RedisScripts, Script

MAX_KNOWN: Final = 1_024  # Limits whose share and arguments are kept.
ANY_NUMBER: Final = 1_000_000_000
BUCKET_PREFIX: Final = "trunkline:bucket1:"  # The number is that of the format of what is kept.
LEASE_PREFIX: Final = "trunkline:lease1:"

CLOCK: Final = """
local spare_ms = 1000
local function instant(number)
  if number >= 0 then
    spare_ms = 60000  -- A test's clock, that stands still while keys expire by the server's.
    return number
  end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function lifetime_ms(us)
  return string.format('%.0f', math.ceil(us / 1000) + spare_ms)
end
"""

# All numbers come in one argument, and leave in one string: to pack and to parse each by itself takes the client longer
# than the rest. First the instant, or -1, and 1 to take or 0 to look; then for each bucket its drain, and in two parts
# each its capacity, a floor (the level is at least that) and the cost.
BUCKET: Final = (
    CLOCK
    + """
local given, FIRST, WIDTH = {}, 3, 7
for number in string.gmatch(ARGV[1], '%S+') do given[#given + 1] = tonumber(number) end
local now = instant(given[1])

local function is_more(us, rest, than_us, than_rest)
  return us > than_us or (us == than_us and rest > than_rest)
end

local function read(key, first)
  local bucket = {us = 0, rest = 0, drain = given[first], most_us = given[first + 1] + MAX_DEBT_US,
    most_rest = given[first + 2]}
  local floor_us, floor_rest = given[first + 3], given[first + 4]
  local kept = redis.call('GET', key)
  if kept then
    local at, us, rest = string.match(kept, '^(%d+) (%d+) (%d+)$')
    at, us, rest = tonumber(at), tonumber(us), math.min(tonumber(rest), bucket.drain - 1)
    if now > at then us = us - (now - at) end
    if us < 0 then us, rest = 0, 0 end
    bucket.us, bucket.rest, bucket.is_changed = us, rest, now < at
  end
  if is_more(floor_us, floor_rest, bucket.us, bucket.rest) then
    bucket.us, bucket.rest, bucket.is_changed = floor_us, floor_rest, true
  end
  if is_more(bucket.us, bucket.rest, bucket.most_us, bucket.most_rest) then
    bucket.us, bucket.rest, bucket.is_changed = bucket.most_us, bucket.most_rest, true
  end
  return bucket
end

local function add_cost(bucket, us, rest, first)
  us, rest = us + given[first + 5], rest + given[first + 6]
  if rest >= bucket.drain then us, rest = us + 1, rest - bucket.drain end
  return us, rest
end

local function write(key, us, rest)
  if us == 0 and rest == 0 then
    redis.call('DEL', key)
  else
    local value = string.format('%.0f %.0f %.0f', now, us, rest)
    redis.call('SET', key, value, 'PX', lifetime_ms(us))
  end
end
""".replace("MAX_DEBT_US", str(gcra.MAX_DEBT_US))
)

# Answers 1 or 0, and the two parts of each level.
TAKE: Final = Script(
    "-- trunkline take 1"
    + BUCKET
    + """
local fits, buckets, answer = given[2] == 1, {}, {}
for index, key in ipairs(KEYS) do
  local first = FIRST + (index - 1) * WIDTH
  local bucket = buckets[key]
  if not bucket then
    bucket = read(key, first)
    bucket.next_us, bucket.next_rest = bucket.us, bucket.rest
    buckets[key] = bucket
  end
  local us, rest = add_cost(bucket, bucket.next_us, bucket.next_rest, first)
  if is_more(us, rest, given[first + 1], given[first + 2]) then fits = false end
  bucket.next_us, bucket.next_rest = us, rest
end
answer[1] = fits and '1' or '0'
for _, key in ipairs(KEYS) do
  local bucket = buckets[key]
  if fits then bucket.us, bucket.rest = bucket.next_us, bucket.next_rest end
  if fits or bucket.is_changed then write(key, bucket.us, bucket.rest) end
  answer[#answer + 1] = string.format('%.0f %.0f', bucket.us, bucket.rest)
end
return table.concat(answer, ' ')
"""
)

# The cost may be negative. Answers as `TAKE` does.
SHIFT: Final = Script(
    "-- trunkline shift 1"
    + BUCKET
    + """
local bucket = read(KEYS[1], FIRST)
local us, rest = add_cost(bucket, bucket.us, bucket.rest, FIRST)
if us < 0 then us, rest = 0, 0 end
if is_more(us, rest, bucket.most_us, bucket.most_rest) then us, rest = bucket.most_us, bucket.most_rest end
write(KEYS[1], us, rest)
return string.format('1 %.0f %.0f', us, rest)
"""
)

LEASES: Final = (
    CLOCK
    + """
local key, now = KEYS[1], instant(tonumber(ARGV[1]))

local function add(holder, at) redis.call('ZADD', key, string.format('%.0f', at), holder) end

local function look()
  local seen = tonumber(redis.call('ZSCORE', key, '') or now)
  if seen > now then
    local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for index = 1, #all, 2 do add(all[index], tonumber(all[index + 1]) - (seen - now)) end
  end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
end

local function leave()
  local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
  if #last > 0 then
    add('', now)
    redis.call('PEXPIRE', key, lifetime_ms(tonumber(last[2]) - now))
  end
end
"""
)

# ARGV: the instant or -1, the holder, for how long in microseconds, and how many at most.
LEASE: Final = Script(
    "-- trunkline lease 1"
    + LEASES
    + """
look()
local is_given = redis.call('ZSCORE', key, ARGV[2]) or redis.call('ZCARD', key) < tonumber(ARGV[4])
if is_given then add(ARGV[2], now + tonumber(ARGV[3])) end
leave()
return is_given and 1 or 0
"""
)

# ARGV: the instant or -1, the holder, for how long in microseconds.
RENEW: Final = Script(
    "-- trunkline renew 1"
    + LEASES
    + """
look()
local is_held = redis.call('ZSCORE', key, ARGV[2])
if is_held then add(ARGV[2], now + tonumber(ARGV[3])) end
leave()
return is_held and 1 or 0
"""
)

# ARGV: the instant or -1, the holder.
RELEASE: Final = Script(
    "-- trunkline release 1"
    + LEASES
    + """
look()
local was_held = redis.call('ZREM', key, ARGV[2])
leave()
return was_held
"""
)

# Reads the clock and writes, as the others do, so that it fails where they would.
PROBE: Final = Script(
    "-- trunkline probe 1"
    + CLOCK
    + """
redis.call('SET', KEYS[1], string.format('%.0f', instant(-1)), 'PX', 1000)
return 1
"""
)


class RedisLimits:
    """Fills `core.limits.Limiter`. Nothing takes longer than `operation_s`, whatever Redis does."""

    def __init__(
        self,
        url: str,
        local: MemoryLimits,
        share: int,
        *,
        clock_us: Callable[[], int] | None = None,
        operation_s: float = OPERATION_S,
    ) -> None:
        """Connects when it is first used, from inside an event loop.

        Args:
            local: what grants this process's share while Redis is away. Nobody else's.
            share: how many processes there are, so that each may grant one part in so many.
            clock_us: None, the server's. A test brings its own.
            operation_s: the longest that anybody waits for Redis.

        Raises:
            ValueError: the address is none, or `share` is not between 1 and `MAX_PROCESSES`.
        """
        if not 1 <= share <= MAX_PROCESSES:
            raise ValueError(f"there are 1 to {MAX_PROCESSES} processes")
        self._scripts = RedisScripts(
            url, PROBE, f"{BUCKET_PREFIX}{{probe}}", operation_s=operation_s
        )
        self._local = local
        self._share = share
        self._clock_us = clock_us
        self._known: dict[Limit, _Known] = {}
        self._granted: set[str] = set()  # Buckets from which was taken while Redis was away.

    async def take(self, demands: Sequence[Demand]) -> Verdict:
        """Take all demands, or none of them.

        Raises:
            ValueError: a cost is negative.
        """
        if min([demand.cost for demand in demands], default=0) < 0:
            raise ValueError("a cost is negative")
        if not demands or self._scripts.is_away:
            return self._take_locally(demands)
        is_possible = all(demand.cost <= demand.limit.burst for demand in demands)
        try:
            is_allowed, *levels = await self._levels(
                TAKE, demands, [demand.cost for demand in demands], to_take=is_possible
            )
        except RedisAway:
            return self._take_locally(demands)
        if is_allowed:
            return Verdict(True, None, 0.0, demands, levels)
        return verdict_of(demands, levels, _waits_us(demands, levels))

    async def shift(self, demand: Demand, cost: int) -> None:
        """`cost` more units of the demand's bucket were used than taken; negative: fewer."""
        try:
            await self._levels(SHIFT, [demand], [cost], to_take=True)
        except RedisAway:
            share = self._known_of(demand.limit).share
            self._local.shift_now(Demand(demand.bucket, share, 0), cost)
            self._remember(demand.bucket)

    async def lease(self, bucket: str, limit: int, holder: str, seconds: float) -> bool:
        """Count `holder` among those that run at once. False: no room.

        While Redis is away, each process has its share of the limit, but room for one at least.

        Raises:
            ValueError: no holder is named, or the time is out of bounds.
        """
        if limit < 1:
            return False
        lease_us = lease_time_us(holder, seconds)
        if not self._scripts.is_away:
            keys = [lease_key(bucket)]
            try:
                is_given = await self._scripts.run(
                    LEASE, keys, [self._instant(), holder, lease_us, limit]
                )
            except RedisAway:
                pass
            except BaseException:  # Cancelled, so nobody would give it back.
                self._scripts.send(RELEASE, keys, [self._instant(), holder])
                raise
            else:
                if is_given:
                    self._local.hold(bucket, holder, seconds)
                return bool(is_given)
        return await self._local.lease(bucket, max(1, limit // self._share), holder, seconds)

    async def renew(self, bucket: str, holder: str, seconds: float) -> bool:
        """Keep a lease that this process was given. False: it has expired or was released.

        Raises:
            ValueError: as for `lease`.
        """
        lease_us = lease_time_us(holder, seconds)
        keys = [lease_key(bucket)]
        try:
            is_held = await self._scripts.run(RENEW, keys, [self._instant(), holder, lease_us])
            is_held_here = await self._local.renew(bucket, holder, seconds)
            if is_held_here and not is_held:
                # It was given while Redis was away, or Redis forgot it. It runs, so it counts, whatever the limit.
                await self._scripts.run(
                    LEASE, keys, [self._instant(), holder, lease_us, ANY_NUMBER]
                )
        except RedisAway:
            return await self._local.renew(bucket, holder, seconds)
        return is_held_here or bool(is_held)

    async def release(self, bucket: str, holder: str) -> None:
        """Give a lease back. One that Redis can't be told of expires there."""
        self._local.let_go(bucket, holder)
        with suppress(RedisAway):
            await self._scripts.run(RELEASE, [lease_key(bucket)], [self._instant(), holder])

    async def close(self) -> None:
        """Let go of the connections. What was taken stays taken."""
        await self._scripts.close()
        await self._local.close()

    def _instant(self) -> int:
        return -1 if self._clock_us is None else self._clock_us()

    async def _levels(
        self, script: Script, demands: Sequence[Demand], costs: Sequence[int], *, to_take: bool
    ) -> list[int]:
        """What Redis says: 1 or 0, and the level of each bucket.

        Raises:
            RedisAway.
        """
        keys: list[str] = []
        numbers = [f"{self._instant()} {to_take:d}"]
        for (bucket, limit, _), cost in zip(demands, costs, strict=True):
            rate, known = limit.rate, self._known_of(limit)
            floor = self._level_here(bucket, limit) if bucket in self._granted else 0
            floor_us, floor_rest = divmod(floor, rate.drain)
            cost_us, cost_rest = divmod(cost * rate.weight, rate.drain)
            keys.append(bucket_key(bucket))
            numbers.append(f"{known.arguments} {floor_us} {floor_rest} {cost_us} {cost_rest}")
        answer = await self._scripts.run(script, keys, [" ".join(numbers)])
        found = [int(number) for number in answer.split()]
        levels = found[:1]
        for (bucket, limit, _), us, rest in zip(demands, found[1::2], found[2::2], strict=True):
            level = us * limit.rate.drain + rest
            levels.append(level)
            self._learn(bucket, limit, level)
        return levels

    def _take_locally(self, demands: Sequence[Demand]) -> Verdict:
        """What this process may grant by itself.

        A demand that alone is more than its share is let through by a full bucket, and paid off before the next.
        """
        shares = [self._known_of(demand.limit).share for demand in demands]
        verdict = self._local.take_now(
            [
                Demand(bucket, share, min(cost, share.rate.burst) if cost <= limit.burst else cost)
                for (bucket, limit, cost), share in zip(demands, shares, strict=True)
            ]
        )
        if verdict.is_allowed:
            for (bucket, _, cost), share in zip(demands, shares, strict=True):
                self._remember(bucket)
                if cost > share.rate.burst:
                    self._local.shift_now(Demand(bucket, share, 0), cost - share.rate.burst)
        refused = None
        if verdict.refused is not None:
            refused = demands[[d is verdict.refused for d in verdict.demands].index(True)]
        levels = [
            _same_time(level, share.rate, demand.limit.rate)
            for level, share, demand in zip(verdict.levels, shares, demands, strict=True)
        ]
        return Verdict(verdict.is_allowed, refused, verdict.retry_after_s, demands, levels)

    def _known_of(self, limit: Limit) -> "_Known":
        known = self._known.get(limit)
        if known is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            rate = limit.rate
            capacity_us, capacity_rest = divmod(rate.capacity, rate.drain)
            known = self._known[limit] = _Known(
                replace(limit, processes=self._share),
                f"{rate.drain} {capacity_us} {capacity_rest}",
            )
        return known

    def _learn(self, bucket: str, limit: Limit, level: int) -> None:
        """Redis has told where the bucket stands. A share of it is full after the same time."""
        if self._scripts.is_away:
            return  # Since then. What was granted here meanwhile must not be forgotten.
        share = self._known_of(limit).share
        self._local.set_level(bucket, share, _same_time(level, limit.rate, share.rate))
        self._granted.discard(bucket)

    def _level_here(self, bucket: str, limit: Limit) -> int:
        share = self._known_of(limit).share
        return _same_time(self._local.level(bucket, share), share.rate, limit.rate)

    def _remember(self, bucket: str) -> None:
        if len(self._granted) < MAX_BUCKETS:
            self._granted.add(bucket)


class _Known(NamedTuple):
    """What is worth keeping of a limit: this process's share of it, and what scripts are told."""

    share: Limit
    arguments: str


def bucket_key(bucket: str) -> str:
    """The key of a bucket. Those whose ids share their first two parts are kept together by a cluster."""
    return f"{BUCKET_PREFIX}{_tagged(bucket)}"


def lease_key(bucket: str) -> str:
    """The same for leases."""
    return f"{LEASE_PREFIX}{_tagged(bucket)}"


def _tagged(bucket: str) -> str:
    tag = ":".join(bucket.split(":", 2)[:2])
    return f"{{{tag}}}{bucket[len(tag) :]}"


def _same_time(level: int, rate: gcra.Rate, other: gcra.Rate) -> int:
    """The level at which a bucket of the other rate takes as long to be full, rounded up."""
    return -(-level * other.drain // rate.drain)


def _waits_us(demands: Sequence[Demand], levels: Sequence[int]) -> list[int | None]:
    """Of demands that were refused together. One that names a bucket again comes after the one that did before."""
    waits_us: list[int | None] = []
    before: dict[str, int] = {}
    for (bucket, limit, cost), level in zip(demands, levels, strict=True):
        waits_us.append(gcra.wait_us(limit.rate, level + before.get(bucket, 0), cost))
        before[bucket] = before.get(bucket, 0) + cost * limit.rate.weight
    return waits_us
