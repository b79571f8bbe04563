-- Moves a batch from the back of its queue to behind those of its own priority and before all lower ones.
-- KEYS[1] list rq:queue:...; ARGV: 1 batch id, which is the last of the list, 2 its priority, 3 prefix of RQ's job keys
-- Returns 1 if it was moved, 0 if it stands where it should.
local priority = tonumber(ARGV[2])
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -2)) do
  local job = ARGV[3] .. id
  -- What is no job of ours has no priority, and is a worker's to put aside.
  local its = redis.call('TYPE', job).ok == 'hash' and tonumber(redis.call('HGET', job, 'priority') or 0) or 0
  if its < priority then
    redis.call('RPOP', KEYS[1])
    redis.call('LINSERT', KEYS[1], 'BEFORE', id, ARGV[1])
    return 1
  end
end
return 0
