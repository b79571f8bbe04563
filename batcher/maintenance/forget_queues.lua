-- Takes names out of `queues` that name no stream of questions. Whoever adds a name adds to its stream in the same step.
-- KEYS[1] set queues; then the stream of each name, if it is one; ARGV: the names
-- Returns how many were taken out.
local gone = 0
for i, name in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[i + 1]) == 0 then gone = gone + redis.call('SREM', KEYS[1], name) end
end
return gone
