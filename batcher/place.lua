-- Moves a batch from the back of its queue to where it should stand: before all lower priorities, and among those of its own where it is its run's
-- turn. The first batches of all runs come before the second ones of any, and so on.
-- KEYS[1] list rq:queue:...; ARGV: 1 batch id, which is the last of the list, 2 its priority, 3 whose turn it takes, 4 prefix of RQ's job keys
-- Returns 1 if it was moved, 0 if it stands where it should.
local priority, run = tonumber(ARGV[2]), ARGV[3]
local earlier = {}
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -2)) do
  local job = ARGV[4] .. id
  -- What is no job of ours has no priority and no run, and is a worker's to put aside.
  local was = redis.call('TYPE', job).ok == 'hash' and redis.call('HMGET', job, 'priority', 'turn') or {}
  table.insert(earlier, {id, tonumber(was[1] or 0) or 0, was[2] or ''})
end
local mine = 1
for _, batch in ipairs(earlier) do
  if batch[2] == priority and batch[3] == run then mine = mine + 1 end
end
local turns, before = {}, nil
for _, batch in ipairs(earlier) do
  local id, its, whose = unpack(batch)
  if its < priority then
    before = before or id
    break
  elseif its == priority then
    turns[whose] = (turns[whose] or 0) + 1
    if whose == run then
      before = nil
    elseif turns[whose] > mine then
      before = before or id
    end
  end
end
if not before then return 0 end
redis.call('RPOP', KEYS[1])
redis.call('LINSERT', KEYS[1], 'BEFORE', before, ARGV[1])
return 1
