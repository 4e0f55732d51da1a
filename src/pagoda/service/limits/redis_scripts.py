"""What Redis does in one step each, in Lua. Times are Redis's own, in milliseconds; ages are told, not times.

An account has four keys: ``log`` (calls of the last minute by time), ``tok`` (tokens of each), ``sum`` (of requests and
tokens in the log), ``open`` (calls under way by the time when they expire). Every step names the epoch that it belongs
to and does nothing in another one: after a loss of its memory Redis is in none.
"""

from __future__ import annotations

WINDOW_MS = 60_000

_CLOCK = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""

_FORGET = (
    _CLOCK
    + """
local function add(sum, tokens)
  redis.call('HINCRBY', sum, 't', string.format('%d', tokens))  -- a bare -0 is no integer to Redis
end
local function forget(log, tok, sum, open)
  while true do
    local old = redis.call('ZRANGEBYSCORE', log, '-inf', now - 60000, 'LIMIT', 0, 500)
    if #old == 0 then break end
    for _, id in ipairs(old) do
      add(sum, -tonumber(redis.call('HGET', tok, id) or '0'))
      if string.sub(id, 1, 1) == '1' then redis.call('HINCRBY', sum, 'r', -1) end
      redis.call('HDEL', tok, id)
    end
    redis.call('ZREM', log, unpack(old))
  end
  redis.call('ZREMRANGEBYSCORE', open, '-inf', now)
end
local function enter(base, id, at, tokens, expires)
  if redis.call('ZADD', KEYS[base], 'NX', string.format('%d', at), id) == 1 then
    redis.call('HSET', KEYS[base + 1], id, tokens)
    add(KEYS[base + 2], tokens)
    if string.sub(id, 1, 1) == '1' then redis.call('HINCRBY', KEYS[base + 2], 'r', 1) end
  end
  if expires > 0 and string.sub(id, 1, 1) == '1' then
    redis.call('ZADD', KEYS[base + 3], string.format('%d', expires), id)
  end
  for key = base, base + 2 do redis.call('PEXPIRE', KEYS[key], 61000) end
  if expires > 0 then redis.call('PEXPIRE', KEYS[base + 3], math.max(61000, expires - now + 1000)) end
end
"""
)

RESERVE = (
    _FORGET
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'epoch'} end
if redis.call('EXISTS', KEYS[2]) == 0 then return {'wait'} end
local id, least, most, lease = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local counts = string.sub(id, 1, 1) == '1'
local accounts = (#KEYS - 2) / 4
local told = {}
local refused = nil
for index = 0, accounts - 1 do
  local k = 3 + index * 4
  local log, tok, sum, open = KEYS[k], KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  forget(log, tok, sum, open)
  local rpm, tpm, at_once = tonumber(ARGV[6 + index * 3]), tonumber(ARGV[7 + index * 3]), tonumber(ARGV[8 + index * 3])
  local requests = tonumber(redis.call('HGET', sum, 'r') or '0')
  local tokens = tonumber(redis.call('HGET', sum, 't') or '0')
  table.insert(told, requests)
  table.insert(told, tokens)
  if not refused then
    local need_r, need_t = 0, 0
    if rpm >= 0 and counts and requests >= rpm then refused, need_r = {'requests', requests}, requests - rpm + 1
    elseif at_once >= 0 and counts and redis.call('ZCARD', open) >= at_once then
      refused = {'concurrent', redis.call('ZCARD', open)}
    elseif tpm >= 0 and least > tpm - tokens then refused, need_t = {'tokens', tokens}, least - (tpm - tokens)
    elseif tpm >= 0 then most = math.min(most, tpm - tokens) end
    if refused then
      local wait = 1000
      if need_r > 0 or need_t > 0 then
        local entries = redis.call('ZRANGE', log, 0, 999, 'WITHSCORES')
        wait = 60000
        for place = 1, #entries, 2 do
          if string.sub(entries[place], 1, 1) == '1' then need_r = need_r - 1 end
          need_t = need_t - tonumber(redis.call('HGET', tok, entries[place]) or '0')
          if need_r <= 0 and need_t <= 0 then wait = tonumber(entries[place + 1]) + 60000 - now break end
        end
      end
      refused = {'no', index, refused[1], refused[2], math.max(0, wait)}
    end
  end
end
if refused then
  for _, each in ipairs(told) do table.insert(refused, each) end
  return refused
end
for index = 0, accounts - 1 do enter(3 + index * 4, id, now, most, now + lease) end
return {'ok', most, unpack(told)}
"""
)

SETTLE = (
    _FORGET
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local id, used = ARGV[2], tonumber(ARGV[3])
for k = 2, #KEYS, 4 do
  local had = redis.call('HGET', KEYS[k + 1], id)
  redis.call('ZREM', KEYS[k + 3], id)
  if had then
    if used >= 0 then
      redis.call('HSET', KEYS[k + 1], id, used)
      add(KEYS[k + 2], used - tonumber(had))
    else
      redis.call('HDEL', KEYS[k + 1], id)
      redis.call('ZREM', KEYS[k], id)
      add(KEYS[k + 2], -tonumber(had))
      if string.sub(id, 1, 1) == '1' then redis.call('HINCRBY', KEYS[k + 2], 'r', -1) end
    end
  end
end
return 1
"""
)
"""Below zero tokens: the call never was."""

RENEW = (
    _CLOCK
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for k = 2, #KEYS do
  redis.call('ZADD', KEYS[k], 'XX', string.format('%d', now + tonumber(ARGV[3])), ARGV[2])
  redis.call('PEXPIRE', KEYS[k], math.max(61000, tonumber(ARGV[3]) + 1000))
end
return 1
"""
)

BEGIN = (
    _CLOCK
    + """
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ARGV[1]
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  redis.call('SET', KEYS[1], epoch)
  redis.call('SET', KEYS[5], string.format('%d', now))
  for index = 3, #ARGV do redis.call('SADD', KEYS[3], ARGV[index]) end
end
redis.call('SADD', KEYS[3], ARGV[2])
return epoch
"""
)
"""Keys: epoch, gate, those expected, those that announced, when it began. The first to come begins a new epoch."""

ENTER = (
    _FORGET
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local expires = 0
if tonumber(ARGV[5]) > 0 then expires = now + tonumber(ARGV[5]) end
for k = 2, #KEYS, 4 do enter(k, ARGV[2], now - tonumber(ARGV[3]), tonumber(ARGV[4]), expires) end
return 1
"""
)

READY = (
    _CLOCK
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
redis.call('SADD', KEYS[4], ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 1 then return 1 end
local missing = redis.call('SDIFF', KEYS[3], KEYS[4])
if #missing > 0 and now - tonumber(redis.call('GET', KEYS[5]) or '0') < 60000 then return 0 end
redis.call('SET', KEYS[2], '1')
return 1
"""
)
"""Opens the gate when all have announced; whoever is silent for a minute has nothing that still counts."""
