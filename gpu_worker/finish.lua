-- Ends a batch, if the worker still holds it. What it could not read of it, being of a newer wire version, waits for a worker that can.
-- KEYS[1] zset leases:MODEL; KEYS[2] hash rq:job:ID; KEYS[3] zset newer:MODEL
-- ARGV: 1 batch id, 2 lease token, 3 wire version that the rest needs, or 0 if there is no rest
-- Returns 1, or 0 if the lease was lost and the batch is somebody else's now.
-- pcall: where something else is under the name of the job, the lease is lost too.
if redis.pcall('HGET', KEYS[2], 'lease_token') ~= ARGV[2] then return 0 end
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
redis.call('ZCARD', KEYS[3])
redis.call('ZREM', KEYS[1], ARGV[1])
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[2])
else
  -- For what it could not read, this was no attempt; what it did read has records by now.
  redis.call('HDEL', KEYS[2], 'lease_token')
  redis.call('HSET', KEYS[2], 'status', 'queued', 'recheck', '1')
  redis.call('HINCRBY', KEYS[2], 'attempts', -1)
  redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
end
return 1
