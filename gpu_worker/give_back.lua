-- Returns an unfinished batch, if the worker still holds it.
-- KEYS[1] zset leases:MODEL; KEYS[2] hash rq:job:ID; KEYS[3] list rq:queue:...; KEYS[4] list suspects:MODEL; KEYS[5] list isolated:MODEL
-- ARGV: 1 batch id, 2 lease token, 3 deaths that make a batch suspect, or '' if the worker merely stops: then it was no attempt,
--   4 the worker, for the evidence
-- Returns 1, or 0 if the lease was lost and the batch is somebody else's now.
-- pcall: where something else is under the name of the job, the lease is lost too.
if redis.pcall('HGET', KEYS[2], 'lease_token') ~= ARGV[2] then return 0 end
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
for i = 3, 5 do redis.call('LLEN', KEYS[i]) end
local function count(text) return text and #text < 10 and tonumber(text:match('^%d+$')) or 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], 'lease_token')
redis.call('HSET', KEYS[2], 'status', 'queued')
local alone, died = unpack(redis.call('HMGET', KEYS[2], 'alone', 'died'))
if ARGV[3] == '' then
  -- What of it has a record already is to be left out, which is looked at otherwise only from the second attempt on.
  redis.call('HSET', KEYS[2], 'attempts', math.max(0, count(redis.call('HGET', KEYS[2], 'attempts')) - 1), 'recheck', '1')
  redis.call('LPUSH', alone and KEYS[5] or KEYS[3], ARGV[1])
  return 1
end
local deaths = count(redis.call('HGET', KEYS[2], 'deaths')) + 1
redis.call('HSET', KEYS[2], 'deaths', deaths, 'died', (died and died .. ',' or '') .. ARGV[4])
if alone then redis.call('HSET', KEYS[2], 'alone', count(alone) + 1) end
redis.call('LPUSH', (alone or deaths >= tonumber(ARGV[3])) and KEYS[4] or KEYS[3], ARGV[1])
return 1
