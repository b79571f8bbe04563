-- Hands batches over: their questions leave the stream and become jobs of RQ, all in one step. Behind batcher/fence.lua.
-- KEYS[1] list rq:queue:...; KEYS[2] stream questions:MODEL:P; KEYS[3] set rq:queues; then hash rq:job:ID of each batch
-- ARGV: 1 their priority, 2 prefix of RQ's job keys, 3 how many entries leave the stream, then their ids; then for each batch: its id, whose turn
--   it takes, '1' if it may belong before others, how many words its fields are, and those: name, value
-- Returns how many batches wait now.
-- A key of a wrong type must stop the script here, before it changes anything, and not in the middle.
redis.call('LLEN', KEYS[1])
redis.call('XLEN', KEYS[2])
redis.call('SCARD', KEYS[3])
local priority, prefix, entries = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])

-- Moves a batch from the back of the queue to where it should stand: before all lower priorities, and among those of its own where it is its run's
-- turn. The first batches of all runs come before the second ones of any, and so on.
local function place(id, run)
  local earlier, mine = {}, 1
  for _, other in ipairs(redis.call('LRANGE', KEYS[1], 0, -2)) do
    -- What is no job of ours has no priority and no run, and is a worker's to put aside.
    local job = prefix .. other
    local was = redis.call('TYPE', job).ok == 'hash' and redis.call('HMGET', job, 'priority', 'turn') or {}
    local its, whose = tonumber(was[1] or 0) or 0, was[2] or ''
    table.insert(earlier, {other, its, whose})
    if its == priority and whose == run then mine = mine + 1 end
  end
  local turns, before = {}, nil
  for _, batch in ipairs(earlier) do
    local other, its, whose = unpack(batch)
    if its < priority then
      before = before or other
      break
    elseif its == priority then
      turns[whose] = (turns[whose] or 0) + 1
      if whose == run then
        before = nil
      elseif turns[whose] > mine then
        before = before or other
      end
    end
  end
  if before then
    redis.call('RPOP', KEYS[1])
    redis.call('LINSERT', KEYS[1], 'BEFORE', before, id)
  end
end

redis.call('SADD', KEYS[3], KEYS[1])
local at, number = 4 + entries, 4
while at <= #ARGV do
  local id, run, words = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 3])
  redis.call('HSET', KEYS[number], unpack(ARGV, at + 4, at + 3 + words))
  redis.call('RPUSH', KEYS[1], id)
  if ARGV[at + 2] == '1' then place(id, run) end
  at, number = at + 4 + words, number + 1
end
-- Lua hands some 8 000 values to one command at most.
for first = 4, 3 + entries, 1000 do
  redis.call('XDEL', KEYS[2], unpack(ARGV, first, math.min(first + 999, 3 + entries)))
end
return redis.call('LLEN', KEYS[1])
