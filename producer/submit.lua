-- Accepts the next questions of a run, all or none. Safe to send twice: the cursor says what was accepted.
-- KEYS[1] hash   run:ID            fingerprint, cursor, counts, and the stream that was written to last
-- KEYS[2] bitmap run:ID:accepted
-- KEYS[3] bitmap run:ID:done
-- KEYS[4] stream run:ID:records
-- KEYS[5] hash   pending           questions and bytes accepted and not yet terminal
-- KEYS[6] zset   runs              run id -> last activity (ms)
-- KEYS[7] set    queues            names of the streams of questions
-- KEYS[8] stream wake
-- KEYS[9] zset   refused           runs that found no room -> when (ms)
-- KEYS[10] zset  expiring          names of streams -> the earliest deadline in them (s)
-- KEYS[11..]     streams of questions, one for each model and priority among them
-- ARGV: 1 run id, 2 cursor before, 3 cursor after, 4 TTL (s), 5 most pending questions, 6 most pending bytes, 7 most unacknowledged of
--   a run, 8 most queues, 9 mark of the questions before the cursor after, or '', 10 epoch of the run, 11 number of streams, then each stream's name in `queues`,
--   then for each question: stream number (0: the bytes are already its failure record), index, bytes, deadline (s) or ''. At most 1 000
--   questions: Lua hands some 8 000 values to one command at most.
-- Returns {'ok'}, {'cursor', actual}, {'gone'}, {'cancelled'}, {'window'}, {'pending', questions, bytes}, {'share', questions, runs that wait},
--   {'queues', how many}.
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
for _, i in ipairs({4, 8}) do redis.call('XLEN', KEYS[i]) end
for i = 11, #KEYS do redis.call('XLEN', KEYS[i]) end
for i = 2, 3 do redis.call('STRLEN', KEYS[i]) end
for _, i in ipairs({6, 9, 10}) do redis.call('ZCARD', KEYS[i]) end
local REFUSED_MS = 2000

local cursor, cancelled, accepted, acknowledged, answered, failed, epoch =
  unpack(redis.call('HMGET', KEYS[1], 'cursor', 'cancelled', 'accepted', 'acknowledged', 'answered', 'failed', 'epoch'))
-- Another run of the same id is not ours either.
if not cursor or (epoch or '') ~= ARGV[10] then return {'gone'} end
if cursor ~= ARGV[2] then return {'cursor', cursor} end
if cancelled then return {'cancelled'} end

local streams = tonumber(ARGV[11])
local first = 12 + streams
local questions, bytes, refused = 0, 0, 0
for i = first, #ARGV, 4 do
  if ARGV[i] == '0' then
    refused = refused + 1
  else
    questions = questions + 1
    bytes = bytes + #ARGV[i + 2]
  end
end

if (accepted or 0) - (acknowledged or 0) + questions + refused > tonumber(ARGV[7]) then return {'window'} end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local pending = redis.call('HMGET', KEYS[5], 'questions', 'bytes')
local pending_questions, pending_bytes = tonumber(pending[1] or 0), tonumber(pending[2] or 0)
-- What is too much by itself may pass when nothing else is pending; otherwise it would wait for ever.
if questions > 0 and pending_questions > 0 then
  local full = math.max((pending_questions + questions) / tonumber(ARGV[5]), (pending_bytes + bytes) / tonumber(ARGV[6]))
  -- While others find no room, nobody takes more than an equal share of it: room goes to who waits, not to who asks most often.
  local mine = (accepted or 0) - (answered or 0) - (failed or 0)
  local others = redis.call('ZCOUNT', KEYS[9], now - REFUSED_MS, now)
  if (tonumber(redis.call('ZSCORE', KEYS[9], ARGV[1]) or 0)) >= now - REFUSED_MS then others = others - 1 end
  local greedy = others > 0 and mine > 0 and full * (mine + questions) / (pending_questions + questions) > 1 / (others + 1)
  if full > 1 or greedy then
    redis.call('ZREMRANGEBYSCORE', KEYS[9], '-inf', now - REFUSED_MS)
    redis.call('ZADD', KEYS[9], now, ARGV[1])
    redis.call('PEXPIRE', KEYS[9], REFUSED_MS)
    if full > 1 then return {'pending', pending_questions, pending_bytes} end
    return {'share', mine, others}
  end
end

local new = {}
for i = 12, first - 1 do
  if redis.call('SISMEMBER', KEYS[7], ARGV[i]) == 0 then table.insert(new, ARGV[i]) end
end
if #new > 0 then
  local known = redis.call('SCARD', KEYS[7])
  if known + #new > tonumber(ARGV[8]) then return {'queues', known} end
  redis.call('SADD', KEYS[7], unpack(new))
  redis.call('XADD', KEYS[8], 'MAXLEN', '~', 1000, '*', 'queue', new[1])
end

-- Neighbours' bits are set together, up to 32 at once, and last: what has no bit was never asked, whatever stopped the script before.
local bits, start, length = {}, 0, 0
local function end_neighbours()
  if length == 0 then return end
  for _, word in ipairs({'SET', 'u' .. length, start, 2 ^ length - 1}) do table.insert(bits, word) end
end
for i = first, #ARGV, 4 do
  local index = tonumber(ARGV[i + 1])
  if length == 32 or index ~= start + length then
    end_neighbours()
    start, length = index, 0
  end
  length = length + 1
  if ARGV[i] == '0' then
    redis.call('SETBIT', KEYS[3], index, 1)
    redis.call('XADD', KEYS[4], '*', 'a', ARGV[i + 2])
  elseif ARGV[i + 3] == '' then
    redis.call('XADD', KEYS[10 + tonumber(ARGV[i])], '*', 'q', ARGV[i + 2], 'r', ARGV[1])
  else
    redis.call('XADD', KEYS[10 + tonumber(ARGV[i])], '*', 'q', ARGV[i + 2], 'r', ARGV[1], 'd', ARGV[i + 3])
    redis.call('ZADD', KEYS[10], 'LT', ARGV[i + 3], ARGV[11 + tonumber(ARGV[i])])
  end
end
end_neighbours()
if #bits > 0 then redis.call('BITFIELD', KEYS[2], unpack(bits)) end
redis.call('HINCRBY', KEYS[5], 'questions', questions)
redis.call('HINCRBY', KEYS[5], 'bytes', bytes)
redis.call('HSET', KEYS[1], 'cursor', ARGV[3])
if streams > 0 then redis.call('HSET', KEYS[1], 'stream', ARGV[12]) end
if ARGV[9] ~= '' then redis.call('HSET', KEYS[1], 'mark', ARGV[9]) end
redis.call('HINCRBY', KEYS[1], 'accepted', questions + refused)
redis.call('HINCRBY', KEYS[1], 'failed', refused)

redis.call('ZADD', KEYS[6], now, ARGV[1])
for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ARGV[4]) end
return {'ok'}
