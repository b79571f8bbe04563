-- Gives a worker as many waiting batches as it has room for, each with a lease. What is popped is leased in the same instant.
-- KEYS[1] list   rq:queue:...      batch ids that wait for a worker
-- KEYS[2] zset   leases:MODEL      batch id -> when the lease lapses (ms)
-- KEYS[3] zset   hungry:MODEL      workers with room and nothing to do
-- KEYS[4] stream wake
-- KEYS[5] zset   workers          those that report
-- KEYS[6] zset   newer:MODEL       batch ids that wait for a worker of a newer wire version
-- ARGV: 1 worker, 2 lease token, 3 lease (ms), 4 room (questions), 5 most batches, 6 prefix of RQ's job keys, 7 hunger lasts (ms),
--   8 the newest wire version that the worker speaks, or 0 not to look among the newer, 9 most bytes of a batch.
--   Without room, one batch is taken, and only from a backlog: if more batches wait than there are workers.
-- Returns {batch id, times given to a worker, data, 1 if some of it may have records already} for each; in place of data, false where no job of
--   that id can be read, and its size where that exceeds the bound.
local room = tonumber(ARGV[4])
if room <= 0 then
  if redis.call('LLEN', KEYS[1]) <= redis.call('ZCARD', KEYS[5]) then return {} end
  room = 1
end
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
redis.call('LLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('XLEN', KEYS[4])
local newer = redis.call('ZCARD', KEYS[6]) > 0
-- Nothing in a job is believed: an error in the middle would lose the batch.
local function count(text) return text and #text < 10 and tonumber(text:match('^%d+$')) or 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local claimed = {}
local function next_batch()
  local readable = newer and redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', ARGV[8], 'LIMIT', 0, 1)[1]
  if not readable then return redis.call('LPOP', KEYS[1]) end
  redis.call('ZREM', KEYS[6], readable)
  return readable
end
while room > 0 and #claimed < tonumber(ARGV[5]) do
  local id = next_batch()
  if not id then break end
  local job = ARGV[6] .. id
  if redis.call('TYPE', job).ok == 'hash' then
    local size = redis.call('HSTRLEN', job, 'data')
    local data = size
    if size <= tonumber(ARGV[9]) then data = redis.call('HGET', job, 'data') end
    local was = redis.call('HMGET', job, 'attempts', 'questions', 'recheck')
    local attempts = count(was[1]) + 1
    redis.call('HSET', job, 'attempts', attempts, 'status', 'started', 'worker_name', ARGV[1], 'lease_token', ARGV[2])
    redis.call('ZADD', KEYS[2], now + ARGV[3], id)
    table.insert(claimed, {id, attempts, data, was[3] and 1 or 0})
    room = room - math.max(1, count(was[2]))
  else
    table.insert(claimed, {id, 0, false, 0})
  end
end
if #claimed > 0 then
  redis.call('ZREM', KEYS[3], ARGV[1])
else
  -- Tell the batcher that what it holds back is wanted. Workers that died hungry drop out here.
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if redis.call('ZADD', KEYS[3], now + ARGV[7], ARGV[1]) == 1 then
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'hungry', ARGV[1])
  end
  redis.call('PEXPIRE', KEYS[3], ARGV[7])
end
return claimed
