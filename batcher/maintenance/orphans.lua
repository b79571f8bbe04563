-- Lists batches again that are listed nowhere: their jobs are there, and what they were listed in was damaged or deleted.
-- KEYS[1] list rq:queue:...; KEYS[2] zset leases:MODEL; KEYS[3] list suspects:MODEL; KEYS[4] list isolated:MODEL; KEYS[5] zset newer:MODEL
-- ARGV: 1 prefix of RQ's job keys, 2 the queue's name for RQ, 3 for how long a worker may show that it holds one (ms),
--   4 deaths that make a batch suspect, then ids of jobs
-- Returns how many were listed again. Whoever moves a batch does so in one step, so what this step finds nowhere is nowhere.
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
local listed = {}
for _, i in ipairs({1, 3, 4}) do
  for _, id in ipairs(redis.call('LRANGE', KEYS[i], 0, -1)) do listed[id] = true end
end
for _, i in ipairs({2, 5}) do redis.call('ZCARD', KEYS[i]) end
local function count(text) return text and #text < 10 and tonumber(text:match('^%d+$')) or 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory.
redis.call('ZREM', KEYS[2], '')
local found = 0
for i = 5, #ARGV do
  local id = ARGV[i]
  local job = ARGV[1] .. id
  if not listed[id] and redis.call('TYPE', job).ok == 'hash' and redis.call('HGET', job, 'origin') == ARGV[2]
    and not redis.call('ZSCORE', KEYS[2], id) and not redis.call('ZSCORE', KEYS[5], id) then
    local token, alone, deaths = unpack(redis.call('HMGET', job, 'lease_token', 'alone', 'deaths'))
    if token then
      -- Its worker, if it lives, renews this with its next heartbeat; if not, it lapses as any other.
      redis.call('ZADD', KEYS[2], now + ARGV[3], id)
    else
      redis.call('LPUSH', alone and KEYS[4] or count(deaths) >= tonumber(ARGV[4]) and KEYS[3] or KEYS[1], id)
    end
    found = found + 1
  end
end
return found
