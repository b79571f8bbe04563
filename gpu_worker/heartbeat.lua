-- A worker reports, and renews the leases of the batches in which its engine makes progress.
-- KEYS[1] zset workers; KEYS[2] hash worker:NAME; KEYS[3] zset leases:MODEL; KEYS[4] string control:NAME; KEYS[5] list isolated:MODEL
-- KEYS[6] zset isolating:MODEL     workers that take isolated batches now -> until when (ms); KEYS[7] set cancelled
-- KEYS[8] zset withdrawn           RUN:EPOCH:INDEX of single questions that nobody wants any more -> since when (ms)
-- ARGV: 1 worker, 2 TTL of the report (ms), 3 lease (ms), 4 prefix of RQ's job keys, 5 number of report fields, then the fields as
--   name, value; then for each lease to renew: batch id, lease token
-- Returns {server's seconds, its microseconds, what the worker is asked to do or '', 1 if it is to take isolated batches, ids of leases
--   that were lost, RUN:EPOCH of runs that were cancelled and RUN:EPOCH:INDEX of questions that were withdrawn}.
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
redis.call('ZCARD', KEYS[1])
redis.call('ZCARD', KEYS[3])
redis.call('LLEN', KEYS[5])
redis.call('ZCARD', KEYS[6])
redis.call('ZCARD', KEYS[8])
local asked, unwanted = redis.call('GET', KEYS[4]), redis.call('SMEMBERS', KEYS[7])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fields = tonumber(ARGV[5])
-- Workers that were killed take no leave: the living forget them, and the last one leaves the rest to the TTL. First of all writes, because
-- Redis refuses a script for want of memory only at a first write that takes memory: no lease may lapse for that reason.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
-- Nobody reports from the future: the server's clock was set back. The living are here again with their next heartbeat.
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + ARGV[2], '+inf')
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 6, 5 + 2 * fields))
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local lost = {}
for i = 6 + 2 * fields, #ARGV, 2 do
  -- Renewing must never steal back a lease that lapsed and went to somebody else.
  -- pcall: where something else is under the name of the job, the lease is lost too.
  if redis.pcall('HGET', ARGV[4] .. ARGV[i], 'lease_token') == ARGV[i + 1] then
    -- Also where it was gone: whoever takes a lease back takes the token with it, so its set was damaged or deleted.
    redis.call('ZADD', KEYS[3], now + ARGV[3], ARGV[i])
  else
    table.insert(lost, ARGV[i])
  end
end
-- Up to half of the workers, and at least one, empty themselves for isolated batches, and stay at it until none is left.
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now)
-- Who says to isolate for that long is no worker.
redis.call('ZREMRANGEBYSCORE', KEYS[6], now + 10 * ARGV[3], '+inf')
local chosen = redis.call('ZSCORE', KEYS[6], ARGV[1]) and 1 or 0
if chosen == 0 then
  local others = redis.call('ZCARD', KEYS[6])
  if others < math.min(redis.call('LLEN', KEYS[5]), math.max(1, math.floor(redis.call('ZCARD', KEYS[1]) / 2))) then chosen = 1 end
end
if chosen == 1 then
  redis.call('ZADD', KEYS[6], now + ARGV[3], ARGV[1])
  redis.call('PEXPIRE', KEYS[6], ARGV[3])
end
for _, question in ipairs(redis.call('ZRANGE', KEYS[8], 0, -1)) do table.insert(unwanted, question) end
return {time[1], time[2], asked or '', chosen, lost, unwanted}
