-- Returns an unfinished batch to the front of its queue, if the worker still holds it. It does not count as an attempt.
-- KEYS[1] zset leases:MODEL; KEYS[2] hash rq:job:ID; KEYS[3] list rq:queue:...; ARGV[1] batch id, ARGV[2] lease token
-- Returns 1, or 0 if the lease was lost and the batch is somebody else's now.
if redis.call('HGET', KEYS[2], 'lease_token') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], 'lease_token')
redis.call('HSET', KEYS[2], 'status', 'queued')
redis.call('HINCRBY', KEYS[2], 'attempts', -1)
redis.call('LPUSH', KEYS[3], ARGV[1])
return 1
