"""What runs inside Redis (or Valkey), in Lua: each script is one round trip and atomic.

The sliding windows are the `limits` library's: its own two scripts run inside ours, as functions, so its keys mean here
what they mean to it. Ours add what it lacks: several windows in one step, refunds, totals, leases.

A window has two keys, for the previous count and the current one (KEYS always come in such pairs). When it began is
told by when it expires: the library lets a window of S seconds that began at t expire at t + 2 S, and keeps that time when
the current count becomes the previous one. A total is a hash: what was `used`, and `since` when it is counted. Both
outlive neither a FLUSHALL nor the operator's DEL, so a refund of what was taken before finds nothing to be taken from.

Time is the server's own, in milliseconds; counts stay below 2^53, up to which Lua is exact.
"""

from __future__ import annotations

from hashlib import sha1

from limits.aio.storage.redis.bridge import RedisBridge


class Script:
    """A Lua script and the name that Redis gives it."""

    __slots__ = ("name", "source")

    def __init__(self, *parts: str) -> None:
        self.source = "\n".join(parts)
        self.name = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


def _library(source: str | bytes) -> str:
    return source.decode() if isinstance(source, bytes) else source


_TIME = """\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_WINDOWS = f"""\
local function library_hit(KEYS, ARGV)
{_library(RedisBridge.SCRIPT_ACQUIRE_SLIDING_WINDOW)}
end

local function library_read(KEYS, ARGV)
{_library(RedisBridge.SCRIPT_SLIDING_WINDOW)}
end

local function used_in_all(key)
    return tonumber(redis.call('hget', key, 'used')) or 0
end

-- Where the server's clock was set back, a window would else go on until that time has come again.
local function bound(previous, current, ms)
    if redis.call('pttl', current) > 2 * ms then
        redis.call('pexpire', current, 2 * ms)
    end
    if redis.call('pttl', previous) > ms then
        redis.call('pexpire', previous, ms)
    end
end

-- Takes `amount` back from a key that has it; what is back at 0 takes no room.
local function lower(key, seconds, amount)
    local left
    if seconds > 0 then
        left = redis.call('decrby', key, amount)
    else
        left = redis.call('hincrby', key, 'used', 0 - amount) -- not -amount: that may be -0
    end
    if left <= 0 then
        redis.call('del', key)
    end
end

-- Charges `amount`; false where that would be over the limit. `seconds` 0: a total.
local function hit(previous, current, limit, seconds, amount)
    if seconds > 0 then
        bound(previous, current, seconds * 1000)
        return library_hit({{previous, current}}, {{limit, seconds, amount}})
    end
    if used_in_all(current) + amount > limit then
        return false
    end
    if amount > 0 then
        redis.call('hsetnx', current, 'since', now)
        redis.call('hincrby', current, 'used', amount)
    end
    return true
end

-- Appends previous count, its ms to live, current count, its ms to live.
local function add_usage(reply, previous, current, seconds)
    local usage = {{0, 0, 0, 0}}
    if seconds > 0 then
        bound(previous, current, seconds * 1000)
        usage = library_read({{previous, current}}, {{seconds}})
    else
        usage[3] = used_in_all(current)
    end
    for i = 1, 4 do
        table.insert(reply, math.max(0, tonumber(usage[i]) or 0))
    end
end
"""

_TAKE = """\
-- ARGV: amount, then limit and seconds of each window. Returns: how many windows had room, now, and the usage
-- of the first that had none, or of all.
local amount = tonumber(ARGV[1])
for i = 1, #KEYS, 2 do
    local limit, seconds = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    if not hit(KEYS[i], KEYS[i + 1], limit, seconds, amount) then
        for j = 1, i - 2, 2 do
            lower(KEYS[j + 1], tonumber(ARGV[j + 2]), amount)
        end
        local reply = {(i - 1) / 2, now}
        add_usage(reply, KEYS[i], KEYS[i + 1], seconds)
        return reply
    end
end
local reply = {#KEYS / 2, now}
for i = 1, #KEYS, 2 do
    add_usage(reply, KEYS[i], KEYS[i + 1], tonumber(ARGV[i + 2]))
end
return reply
"""

_CHARGE = """\
-- ARGV: amount, then seconds of each window.
for i = 1, #KEYS, 2 do
    hit(KEYS[i], KEYS[i + 1], 2 ^ 53, tonumber(ARGV[(i + 3) / 2]), tonumber(ARGV[1]))
end
"""

_LEVELS = """\
-- ARGV: seconds of each window. Returns the usage of each.
local reply = {}
for i = 1, #KEYS, 2 do
    add_usage(reply, KEYS[i], KEYS[i + 1], tonumber(ARGV[(i + 1) / 2]))
end
return reply
"""

_GIVE_BACK = """\
-- ARGV: seconds of each window, then amounts, each with when it was taken.
local slack = 10 -- ms that times may be off by: each is rounded, and read at another moment of a script

local function refund(key, length, amount, taken_at)
    local ms_to_live = redis.call('pttl', key)
    local age = taken_at - (now + ms_to_live - 2 * length) -- of the window, when the amount was taken
    if ms_to_live <= 0 or age < -slack or age >= length + slack then
        return false
    end
    lower(key, length, math.min(amount, tonumber(redis.call('get', key))))
    return true
end

local function refund_window(previous, current, seconds, amount, taken_at)
    if seconds > 0 then
        local ms = seconds * 1000
        -- The previous one first: where the slack leaves both open, that makes less room.
        local _ = refund(previous, ms, amount, taken_at) or refund(current, ms, amount, taken_at)
    elseif (tonumber(redis.call('hget', current, 'since')) or math.huge) <= taken_at then
        lower(current, 0, math.min(amount, used_in_all(current)))
    end
end

for part = #KEYS / 2 + 1, #ARGV, 2 do
    for i = 1, #KEYS, 2 do
        local seconds = tonumber(ARGV[(i + 1) / 2])
        refund_window(KEYS[i], KEYS[i + 1], seconds, tonumber(ARGV[part]), tonumber(ARGV[part + 1]))
    end
end
"""

_LEASES = """\
-- A sorted set of holders, by when their leases expire; it lives as long as the last of them.
local function put(key, holder, ms)
    redis.call('zadd', key, now + ms, holder)
    redis.call('pexpire', key, math.max(ms, redis.call('pttl', key)))
    return now + ms
end
"""

_ACQUIRE = """\
-- KEYS: the leases, and two sorted sets of those who wait: by when they came, and by when they are taken to have left.
-- ARGV: cap, holder, then milliseconds: of the lease, how long the holder has waited, how long his place is kept.
-- Returns whether the holder has a slot, and when the lease expires if it is a new one.
local key, line, leaving = KEYS[1], KEYS[2], KEYS[3]
local cap, holder = tonumber(ARGV[1]), ARGV[2]
local ms, waited, keep = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function leave(gone)
    redis.call('zrem', line, gone)
    redis.call('zrem', leaving, gone)
end

local function forget(first, last)
    for _, gone in ipairs(redis.call('zrangebyscore', leaving, first, last)) do
        leave(gone)
    end
end

redis.call('zremrangebyscore', key, '-inf', now)
leave(holder)
if redis.call('zscore', key, holder) then
    put(key, holder, ms)
    return {1, 0}
end
forget('-inf', now)
if keep > 0 then -- where the clock was set back, the dead would else stay
    forget(string.format('(%.0f', now + keep), '+inf')
end
local came = now - waited
local before = redis.call('zcount', line, '-inf', string.format('(%.0f', came))
if redis.call('zcard', key) + before < cap then
    return {1, put(key, holder, ms)}
end
if keep > 0 then
    put(leaving, holder, keep)
    redis.call('zadd', line, came, holder)
    redis.call('pexpire', line, redis.call('pttl', leaving))
end
return {0, 0}
"""

_RENEW = """\
-- ARGV: milliseconds, then the holder for each key. Returns 1 or 0 for each.
local renewed = {}
for i, key in ipairs(KEYS) do
    local expires_at = tonumber(redis.call('zscore', key, ARGV[i + 1]))
    renewed[i] = 0
    if expires_at and expires_at > now then
        put(key, ARGV[i + 1], tonumber(ARGV[1]))
        renewed[i] = 1
    end
end
return renewed
"""

_RELEASE = """\
-- KEYS: as above. ARGV: holder; or holder and when the lease expires: then it is kept where it was renewed since.
if not ARGV[2] or redis.call('zscore', KEYS[1], ARGV[1]) == ARGV[2] then
    redis.call('zrem', KEYS[1], ARGV[1])
end
redis.call('zrem', KEYS[2], ARGV[1])
redis.call('zrem', KEYS[3], ARGV[1])
"""

_HELD = """\
return redis.call('zcount', KEYS[1], string.format('(%.0f', now), '+inf')
"""

_CHECK = """\
-- A write, of two keys that no server has and that no cluster has in one place.
redis.call('del', KEYS[1], KEYS[2])
"""

TAKE = Script(_TIME, _WINDOWS, _TAKE)
CHARGE = Script(_TIME, _WINDOWS, _CHARGE)
LEVELS = Script(_TIME, _WINDOWS, _LEVELS)
GIVE_BACK = Script(_TIME, _WINDOWS, _GIVE_BACK)
ACQUIRE = Script(_TIME, _LEASES, _ACQUIRE)
RENEW = Script(_TIME, _LEASES, _RENEW)
RELEASE = Script(_RELEASE)
HELD = Script(_TIME, _HELD)
CHECK = Script(_CHECK)
