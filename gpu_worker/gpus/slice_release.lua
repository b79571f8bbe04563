-- Ends the leases of a worker on its GPUs. Those that lapsed and went to another stay the other's.
-- KEYS: string gpu:UUID of each; ARGV[1] worker
-- Returns how many were ended.
local ended = 0
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then ended = ended + redis.call('DEL', key) end
end
return ended
