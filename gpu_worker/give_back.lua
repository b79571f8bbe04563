-- Returns an unfinished batch, if the worker still holds it.
-- KEYS[1] zset leases:MODEL; KEYS[2] hash rq:job:ID; KEYS[3] list rq:queue:...; KEYS[4] list suspects:MODEL; KEYS[5] list isolated:MODEL
-- ARGV: 1 batch id, 2 lease token, 3 deaths that make a batch suspect, or '' if the worker merely stops: then it was no attempt,
--   4 the worker, for the evidence
-- Returns 1, or 0 if the lease was lost and the batch is somebody else's now.
if redis.call('HGET', KEYS[2], 'lease_token') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], 'lease_token')
redis.call('HSET', KEYS[2], 'status', 'queued')
local alone, died = unpack(redis.call('HMGET', KEYS[2], 'alone', 'died'))
if ARGV[3] == '' then
  redis.call('HINCRBY', KEYS[2], 'attempts', -1)
  redis.call('LPUSH', alone and KEYS[5] or KEYS[3], ARGV[1])
  return 1
end
local deaths = redis.call('HINCRBY', KEYS[2], 'deaths', 1)
redis.call('HSET', KEYS[2], 'died', (died and died .. ',' or '') .. ARGV[4])
if alone then redis.call('HINCRBY', KEYS[2], 'alone', 1) end
redis.call('LPUSH', (alone or deaths >= tonumber(ARGV[3])) and KEYS[4] or KEYS[3], ARGV[1])
return 1
