"""Counts in Redis or Valkey: reports and grants in one atomic script for each count."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from openworks.core.errors import StorageError
from openworks.ports.limits import CountsAsk, CountsGrant
from openworks.storage.redis.client import REDIS_ERRORS

# One hash for each count, with these fields:
#   s:OWNER:SLICE   what the process OWNER has spent in a slice
#   o:OWNER:SLICE   what it holds there and has not spent; void once the owner has expired
#   x:OWNER         when the owner expires, in epoch milliseconds
# and two keys: `boot`, until when nothing is granted, since the server lost its memory; and
# `owners`, a sorted set of processes by when they expire.
# Owners report totals, so a script that ran twice, or whose answer was lost, changes nothing, and
# a store that forgot everything is filled again by the next report of every process.
_EXCHANGE = """
local owner, width, depth = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local limit, need, smallest = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local want, hold, owner_ttl = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local grace = tonumber(ARGV[10])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local current = math.floor(now / width)
local oldest = current - depth
local key = KEYS[1]

local boot = redis.call('GET', KEYS[2])
local grace_left = boot and math.max(0, tonumber(boot) - now) or grace

local reported = {}
for i = 11, #ARGV, 3 do
  local slice = ARGV[i]
  if tonumber(slice) >= oldest then
    reported['o:' .. owner .. ':' .. slice] = true
    redis.call('HSET', key, 's:' .. owner .. ':' .. slice, ARGV[i + 1],
                            'o:' .. owner .. ':' .. slice, ARGV[i + 2])
  end
end
redis.call('HSET', key, 'x:' .. owner, string.format('%d', now + owner_ttl))

local fields = redis.call('HGETALL', key)
local alive, owners = {}, 0
for i = 1, #fields, 2 do
  local name, value = fields[i], tonumber(fields[i + 1])
  if string.sub(name, 1, 2) == 'x:' then
    if value > now then
      alive[string.sub(name, 3)] = true
      owners = owners + 1
    else
      redis.call('HDEL', key, name)
    end
  end
end
local taken, first = 0, nil
for i = 1, #fields, 2 do
  local name, value = fields[i], tonumber(fields[i + 1])
  local kind, by, slice = string.match(name, '^([so]):([^:]+):(%d+)$')
  if kind then
    slice = tonumber(slice)
    local is_void = slice < oldest
    if kind == 'o' then
      is_void = is_void or not alive[by] or value == 0 or (by == owner and not reported[name])
    end
    if is_void then
      redis.call('HDEL', key, name)
    else
      taken = taken + value
      if value > 0 and (not first or slice < first) then first = slice end
    end
  end
end

local free, granted = limit - taken, 0
if grace_left == 0 and need > 0 and free > 0 and free >= smallest then
  granted = math.min(free, math.max(need, math.min(want, math.floor(free / (2 * owners)))))
end
local slice = current
if depth > 0 then
  slice = math.floor((now + hold) / width)
else
  hold = math.min(hold, (current + 1) * width - now)
end
local slice_text = string.format('%d', slice)
if granted > 0 then
  redis.call('HINCRBY', key, 'o:' .. owner .. ':' .. slice_text, string.format('%d', granted))
end
redis.call('PEXPIRE', key, string.format('%d', (depth + 2) * width + owner_ttl + hold))
local retry = ((first or current) + depth + 1) * width - now
return {granted, slice, hold, taken + granted, retry, now, grace_left}
"""

_HELLO = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if redis.call('EXISTS', KEYS[2]) == 0 then
  local had_contact = ARGV[3] == '1'
  local boot = had_contact and string.format('%d', now + tonumber(ARGV[4])) or '0'
  redis.call('SET', KEYS[2], boot)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
return redis.call('ZCARD', KEYS[1])
"""

_SEED = """
local width, depth = tonumber(ARGV[1]), tonumber(ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 4, #ARGV, 2 do
  redis.call('HSET', KEYS[1], 's:ledger:' .. ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], string.format('%d', (depth + 2) * width + tonumber(ARGV[3])))
return 1
"""


class RedisCounts:
    """Shared counts in one Redis or Valkey server (7 or newer), by its own clock."""

    def __init__(
        self,
        client: Redis,
        *,
        prefix: str = "{openworks}:limits:",
        owner_ttl_s: float = 30.0,
        grace_s: float = 3.0,
    ) -> None:
        """Use a client that belongs to the caller.

        Args:
            client: With one connection for this alone.
            prefix: Before every key; with braces, so that a cluster keeps them together.
            owner_ttl_s: After how long without a word a process's unspent shares are free again.
            grace_s: How long a server that lost its memory waits for all processes to report;
                longer than the pause between two attempts to connect.
        """
        self._client = client
        self._prefix = prefix
        self._owner_ttl_ms = round(owner_ttl_s * 1000)
        self._grace_ms = round(grace_s * 1000)
        self._had_contact = False
        self._scripts = {script: _digest(script) for script in (_EXCHANGE, _HELLO, _SEED)}

    async def exchange(self, owner: str, asks: Sequence[CountsAsk]) -> Sequence[CountsGrant]:
        try:
            num_owners, *rows = await self._run(owner, asks)
        except REDIS_ERRORS as error:
            raise StorageError(f"The limits' store failed with {type(error).__name__}.") from error
        self._had_contact = True
        return [_grant(row, owners=num_owners) for row in rows]

    async def seed(self, key: str, spent: Mapping[int, int], *, width_ms: int, depth: int) -> bool:
        args: list[int] = [width_ms, depth, self._owner_ttl_ms]
        for number, amount in spent.items():
            args += (number, amount)
        try:
            return bool(await self._client.eval(_SEED, 1, self._count_key(key), *args))
        except REDIS_ERRORS as error:
            raise StorageError(f"The limits' store failed with {type(error).__name__}.") from error

    async def _run(self, owner: str, asks: Sequence[CountsAsk]) -> list[Any]:
        try:
            return await self._run_loaded(owner, asks)
        except NoScriptError:
            for script in self._scripts:
                await self._client.script_load(script)
            return await self._run_loaded(owner, asks)

    async def _run_loaded(self, owner: str, asks: Sequence[CountsAsk]) -> list[Any]:
        exchange, hello = self._scripts[_EXCHANGE], self._scripts[_HELLO]
        owners, boot = self._prefix + "owners", self._prefix + "boot"
        flags = (self._owner_ttl_ms, int(self._had_contact), self._grace_ms)
        # Not a transaction: each count is atomic by itself, and other clients may go in between.
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.evalsha(hello, 2, owners, boot, owner, *flags)
            for ask in asks:
                key = self._count_key(ask.key)
                pipeline.evalsha(exchange, 2, key, boot, *self._args(owner, ask))
            return list(await pipeline.execute())

    def _count_key(self, key: str) -> str:
        return f"{self._prefix}count:{key}"

    def _args(self, owner: str, ask: CountsAsk) -> list[str | int]:
        args: list[str | int] = [
            owner,
            ask.width_ms,
            ask.depth,
            ask.limit,
            ask.need,
            ask.smallest,
            ask.want,
            ask.hold_ms,
            self._owner_ttl_ms,
            self._grace_ms,
        ]
        for number, spent, held in ask.report:
            args += (number, spent, held)
        return args


def _digest(script: str) -> str:
    """Return the name by which the server knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _grant(row: Sequence[int], *, owners: int) -> CountsGrant:
    granted, number, hold_ms, taken, retry_ms, now_ms, grace_ms = row
    return CountsGrant(
        granted=granted,
        slice=number,
        hold_ms=hold_ms,
        taken=taken,
        retry_ms=retry_ms,
        now_ms=now_ms,
        owners=owners,
        grace_ms=grace_ms,
    )
