-- Ends a batch, if the worker still holds it. What it could not read of it, being of a newer wire version, waits for a worker that can.
-- KEYS[1] zset leases:MODEL; KEYS[2] hash rq:job:ID; KEYS[3] zset newer:MODEL; then for each run: hash run:ID, bitmaps run:ID:accepted, run:ID:done
-- ARGV: 1 batch id, 2 lease token, 3 wire version that the rest needs, or 0 if there is no rest, 4 number of runs, then the epoch of each, then for
--   each record that the worker has written for the batch: the number of its run, from 1, and its index
-- Returns {1}, or {0} if the lease was lost and the batch is somebody else's now. If records are not there that were written, {-1, their places,
--   from 1}, and the batch is not ended: Redis was killed, and has lost its last writes.
-- pcall: where something else is under the name of the job, the lease is lost too.
if redis.pcall('HGET', KEYS[2], 'lease_token') ~= ARGV[2] then return {0} end
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
redis.call('ZCARD', KEYS[3])
local pieces = {}
local function bit(bitmap, index)
  local byte = math.floor(index / 8)
  local first = byte - byte % 64
  local name = bitmap .. ' ' .. first
  if not pieces[name] then pieces[name] = redis.call('GETRANGE', bitmap, first, first + 63) end
  return math.floor((pieces[name]:byte(byte - first + 1) or 0) / 2 ^ (7 - index % 8)) % 2
end
local runs = tonumber(ARGV[4])
-- What belongs to a run that is gone has no record, even if there is another of the same id by now.
local is_there = {}
for run = 1, runs do is_there[run] = (redis.call('HGET', KEYS[1 + 3 * run], 'epoch') or '') == ARGV[4 + run] end
local lost = {-1}
local first = 5 + runs
for i = first, #ARGV, 2 do
  local run = tonumber(ARGV[i])
  -- Nor has what was not accepted.
  if is_there[run] and bit(KEYS[2 + 3 * run], ARGV[i + 1]) == 1 and bit(KEYS[3 + 3 * run], ARGV[i + 1]) == 0 then
    table.insert(lost, (i - first) / 2 + 1)
  end
end
if #lost > 1 then return lost end
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
return {1}
