-- Writes terminal records of one run; the first record of a question wins, later ones are counted and dropped.
-- KEYS[1] hash   run:ID
-- KEYS[2] bitmap run:ID:done
-- KEYS[3] stream run:ID:records
-- KEYS[4] hash   pending
-- KEYS[5] zset   runs
-- ARGV: 1 run id, 2 TTL (s), 3 epoch of the run that the questions are of, then for each record: index, 'answered' or
--   'KIND MESSAGE' of a failure, bytes of its question, record
-- Returns how many were first, or -1 if that run is gone and nobody waits for its records, whether or not there is another of the same id by now.
-- A key of a wrong type must stop the script before the first write, and not in the middle; the bitmaps do so where they are used first.
redis.call('XLEN', KEYS[3])
redis.call('HLEN', KEYS[4])
local gone = redis.call('HLEN', KEYS[1]) == 0 or (redis.call('HGET', KEYS[1], 'epoch') or '') ~= ARGV[3]
-- Changes nothing, but is the first write, and Redis refuses a script for want of memory only at a first write that takes memory: a record must
-- be written when Redis is full, for it ends a question, and that makes room.
redis.call('ZREM', KEYS[5], '')
-- What is answered together lies close together: its bits in the ledger of accepted questions are read 512 at a time.
local pieces = {}
local function was_asked(index)
  local byte = math.floor(index / 8)
  local first = byte - byte % 64
  if not pieces[first] then pieces[first] = redis.call('GETRANGE', KEYS[1] .. ':accepted', first, first + 63) end
  local bits = pieces[first]:byte(byte - first + 1) or 0
  return math.floor(bits / 2 ^ (7 - index % 8)) % 2 == 1
end
local bytes, answered, failed, again = 0, 0, 0, 0
local kinds, examples = {}, {}
for i = 4, #ARGV, 4 do
  if gone then
    failed = failed + 1
    bytes = bytes + ARGV[i + 2]
  elseif not was_asked(ARGV[i]) then
    -- Nobody asked this: a foreign question, or one whose acceptance Redis lost. Its producer asks it again. No bit is set beyond the run's.
  elseif redis.call('SETBIT', KEYS[2], ARGV[i], 1) == 0 then
    redis.call('XADD', KEYS[3], '*', 'a', ARGV[i + 3])
    bytes = bytes + ARGV[i + 2]
    if ARGV[i + 1] == 'answered' then
      answered = answered + 1
    else
      failed = failed + 1
      local kind, message = ARGV[i + 1]:match('^(%S+) ?(.*)$')
      if kind then kinds[kind], examples[kind] = (kinds[kind] or 0) + 1, message end
    end
  else
    again = again + 1
  end
end
if answered + failed > 0 then
  -- Never below nothing: of a run that is gone we cannot tell what was counted before.
  for field, less in pairs({questions = answered + failed, bytes = bytes}) do
    if redis.call('HINCRBY', KEYS[4], field, -less) < 0 then redis.call('HSET', KEYS[4], field, 0) end
  end
end
if gone then return -1 end
if answered > 0 then redis.call('HINCRBY', KEYS[1], 'answered', answered) end
if failed > 0 then redis.call('HINCRBY', KEYS[1], 'failed', failed) end
for kind, count in pairs(kinds) do
  -- For people to look at: nothing may fail because of it, and nobody's words become fields without end.
  if redis.call('HEXISTS', KEYS[1], 'failed:' .. kind) == 1 or redis.call('HLEN', KEYS[1]) < 128 then
    redis.pcall('HINCRBY', KEYS[1], 'failed:' .. kind, count)
    redis.call('HSET', KEYS[1], 'example:' .. kind, examples[kind])
  end
end
if again > 0 then redis.call('HINCRBY', KEYS[1], 'regenerated', again) end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[5], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
-- The ledger of accepted questions lives as long as the run.
redis.call('EXPIRE', KEYS[1] .. ':accepted', ARGV[2])
return answered + failed
