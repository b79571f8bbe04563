-- Opens a run or finds it again, and makes the caller the one who collects it.
-- KEYS[1] hash   run:ID
-- KEYS[2] string run:ID:producer   who collects this run
-- KEYS[3] zset   runs
-- ARGV: 1 run id, 2 our token, 3 lease (ms), 4 TTL (s), 5 fingerprint, 6 number of questions (-1: not known yet), 7 token that may be replaced or '',
--   8 epoch of the run if it is new
-- Returns {'busy', holder}, {'differs', fingerprint}, or {'open', cursor, accepted, answered, failed, acknowledged, 1 if it was cancelled, seconds,
--   microseconds, mark of the questions before the cursor or '', epoch}.
local holder = redis.call('GET', KEYS[2])
-- A claim without an end, or a far one, is no producer's.
if holder and (redis.call('PTTL', KEYS[2]) < 0 or redis.call('PTTL', KEYS[2]) > 10 * ARGV[3]) then holder = false end
if holder and holder ~= ARGV[2] and holder ~= ARGV[7] then return {'busy', holder} end
local stored = redis.call('HGET', KEYS[1], 'fingerprint')
if stored and stored ~= ARGV[5] then return {'differs', stored} end
local time = redis.call('TIME')
-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory: whoever collects makes room.
redis.call('EXPIRE', KEYS[1], ARGV[4])
if not stored then
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[5], 'epoch', ARGV[8], 'questions', ARGV[6], 'created', time[1], 'cursor', 0, 'accepted', 0,
    'answered', 0, 'failed', 0, 'regenerated', 0, 'acknowledged', 0)
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
local counts = redis.call('HMGET', KEYS[1], 'cursor', 'accepted', 'answered', 'failed', 'acknowledged', 'mark', 'epoch')
local cancelled = redis.call('HEXISTS', KEYS[1], 'cancelled')
return {'open', counts[1], counts[2], counts[3], counts[4], counts[5], cancelled, time[1], time[2], counts[6] or '', counts[7] or ''}
