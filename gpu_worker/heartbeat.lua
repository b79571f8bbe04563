-- A worker reports, and renews the leases of the batches in which its engine makes progress.
-- KEYS[1] zset workers; KEYS[2] hash worker:NAME; KEYS[3] zset leases:MODEL; KEYS[4] string control:NAME; KEYS[5] list isolated:MODEL
-- KEYS[6] string isolating:MODEL   the worker that takes isolated batches now; KEYS[7] set cancelled
-- ARGV: 1 worker, 2 TTL of the report (ms), 3 lease (ms), 4 prefix of RQ's job keys, 5 number of report fields, then the fields as
--   name, value; then for each lease to renew: batch id, lease token
-- Returns {server's seconds, its microseconds, what the worker is asked to do or '', 1 if it is to take isolated batches, ids of leases
--   that were lost, ids of runs that were cancelled}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fields = tonumber(ARGV[5])
-- Workers that were killed take no leave: the living forget them, and the last one leaves the rest to the TTL. First of all writes, because
-- Redis refuses a script for want of memory only at a first write that takes memory: no lease may lapse for that reason.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 6, 5 + 2 * fields))
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local lost = {}
for i = 6 + 2 * fields, #ARGV, 2 do
  -- Renewing must never steal back a lease that lapsed and went to somebody else.
  if redis.call('HGET', ARGV[4] .. ARGV[i], 'lease_token') == ARGV[i + 1] then
    redis.call('ZADD', KEYS[3], 'XX', now + ARGV[3], ARGV[i])
  else
    table.insert(lost, ARGV[i])
  end
end
-- One worker at a time empties itself for isolated batches, and stays at it until none is left.
local isolating = redis.call('GET', KEYS[6])
local chosen = 0
if isolating == ARGV[1] or (not isolating and redis.call('LLEN', KEYS[5]) > 0) then
  redis.call('SET', KEYS[6], ARGV[1], 'PX', ARGV[3])
  chosen = 1
end
return {time[1], time[2], redis.call('GET', KEYS[4]) or '', chosen, lost, redis.call('SMEMBERS', KEYS[7])}
