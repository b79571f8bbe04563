-- Cancels a run: nothing more of it is accepted, and what was accepted ends as `cancelled` wherever it is.
-- KEYS[1] hash run:ID; KEYS[2] set cancelled; KEYS[3] stream wake, for the batcher; KEYS[4] stream news, for workers
-- ARGV[1] run id, ARGV[2] TTL (s), ARGV[3] how long news is news (s)
-- Returns {accepted, terminal}, or false if there is no such run.
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
redis.call('SCARD', KEYS[2])
redis.call('XLEN', KEYS[3])
redis.call('XLEN', KEYS[4])
local counts = redis.call('HMGET', KEYS[1], 'accepted', 'answered', 'failed', 'epoch')
if not counts[1] then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory:
-- what is cancelled makes room.
redis.call('SREM', KEYS[2], '')
if redis.call('HEXISTS', KEYS[1], 'cancelled') == 0 then redis.call('HSET', KEYS[1], 'cancelled', now) end
-- As wire.keys.run_member names it.
local epoch = counts[4] or ''
redis.call('SADD', KEYS[2], epoch == '' and ARGV[1] or ARGV[1] .. ':' .. epoch)
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'cancelled', ARGV[1])
redis.call('XADD', KEYS[4], 'MAXLEN', 10, '*', 'cancelled', ARGV[1])
redis.call('EXPIRE', KEYS[4], ARGV[3])
return {tonumber(counts[1]) or 0, (tonumber(counts[2]) or 0) + (tonumber(counts[3]) or 0)}
