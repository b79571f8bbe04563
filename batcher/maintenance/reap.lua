-- Takes back batches whose lease lapsed.
-- KEYS[1] zset  leases:MODEL       batch id -> when the lease lapses (ms)
-- KEYS[2] list  rq:queue:...       batch ids that wait for a worker
-- KEYS[3] list  suspects:MODEL     batch ids whose workers keep dying
-- ARGV: 1 prefix of RQ's job keys, 2 most batches to take back at once, 3 deaths that make a batch suspect, 4 the longest lease (ms)
-- Returns {batch id, its last worker, how many of its workers died} for each.
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
redis.call('LLEN', KEYS[2])
redis.call('LLEN', KEYS[3])
local function count(text) return text and #text < 10 and tonumber(text:match('^%d+$')) or 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lapsed = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
-- No worker makes a lease that long: the server's clock was set back, or a stranger wrote it. Who lives renews it with the next heartbeat.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now + ARGV[4], '+inf', 'LIMIT', 0, ARGV[2])) do
  redis.call('ZADD', KEYS[1], now + ARGV[4], id)
end
local taken = {}
for _, id in ipairs(lapsed) do
  redis.call('ZREM', KEYS[1], id)
  local job = ARGV[1] .. id
  -- A finished batch has no job any more; a lease without a job guards nothing.
  if redis.call('TYPE', job).ok == 'hash' then
    local was = redis.call('HMGET', job, 'worker_name', 'died', 'alone')
    local deaths = count(redis.call('HGET', job, 'deaths')) + 1
    -- Without the token, whoever held the batch can neither finish nor return it.
    redis.call('HDEL', job, 'lease_token')
    redis.call('HSET', job, 'status', 'queued', 'deaths', deaths, 'died', (was[2] and was[2] .. ',' or '') .. (was[1] or ''))
    if was[3] then redis.call('HSET', job, 'alone', count(was[3]) + 1) end
    redis.call('LPUSH', (was[3] or deaths >= tonumber(ARGV[3])) and KEYS[3] or KEYS[2], id)
    table.insert(taken, {id, was[1] or '', deaths})
  end
end
return taken
