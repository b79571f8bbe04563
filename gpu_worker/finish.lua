-- Ends a batch, if the worker still holds it.
-- KEYS[1] zset leases:MODEL; KEYS[2] hash rq:job:ID; ARGV[1] batch id, ARGV[2] lease token
-- Returns 1, or 0 if the lease was lost and the batch is somebody else's now.
if redis.call('HGET', KEYS[2], 'lease_token') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1
