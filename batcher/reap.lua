-- Takes back batches whose lease lapsed and puts them at the front of their queue.
-- KEYS[1] zset  leases:MODEL       batch id -> when the lease lapses (ms)
-- KEYS[2] list  rq:queue:...       batch ids that wait for a worker
-- ARGV[1] prefix of RQ's job keys; ARGV[2] most batches to take back at once
-- Returns {batch id, its last worker, times given to a worker} for each.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lapsed = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
local taken = {}
for _, id in ipairs(lapsed) do
  redis.call('ZREM', KEYS[1], id)
  local job = ARGV[1] .. id
  -- A finished batch has no job any more; a lease without a job guards nothing.
  if redis.call('EXISTS', job) == 1 then
    local was = redis.call('HMGET', job, 'worker_name', 'attempts')
    -- Without this token, whoever held the batch can neither finish nor return it.
    redis.call('HDEL', job, 'lease_token')
    redis.call('HSET', job, 'status', 'queued')
    redis.call('HINCRBY', job, 'deaths', 1)
    redis.call('LPUSH', KEYS[2], id)
    table.insert(taken, {id, was[1] or '', was[2] or '0'})
  end
end
return taken
