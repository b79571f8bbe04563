-- Does what was decided of suspect batches of one model. Behind batcher/fence.lua.
-- KEYS[1] list suspects:MODEL; KEYS[2] list isolated:MODEL; KEYS[3] list rq:queue:...
-- ARGV: 1 prefix of RQ's job keys, 2 what becomes of the batches: 'end' (others take their place), 'last' (to the end of the suspects) or 'free' (to
--   the end of the queue, as after one death less), 3 how many they are, then their ids; then for each batch that is to run alone: its id, how many
--   words its fields are, and those: name, value
-- Returns how many were suspects until now.
-- A key of a wrong type must stop the script here, before it changes anything, and not in the middle.
for i = 1, 3 do redis.call('LLEN', KEYS[i]) end
local function count(text) return text and #text < 10 and tonumber(text:match('^%d+$')) or 0 end
local batches, were = tonumber(ARGV[3]), 0
for i = 4, 3 + batches do
  local job = ARGV[1] .. ARGV[i]
  local removed = redis.call('LREM', KEYS[1], 1, ARGV[i])
  were = were + removed
  if ARGV[2] == 'end' then
    redis.call('DEL', job)
  elseif removed == 1 and ARGV[2] == 'last' then
    redis.call('RPUSH', KEYS[1], ARGV[i])
  elseif removed == 1 then
    redis.call('HSET', job, 'deaths', math.max(0, count(redis.call('HGET', job, 'deaths')) - 1))
    redis.call('RPUSH', KEYS[3], ARGV[i])
  end
end
local at = 4 + batches
while at <= #ARGV do
  local words = tonumber(ARGV[at + 1])
  redis.call('HSET', ARGV[1] .. ARGV[at], unpack(ARGV, at + 2, at + 1 + words))
  redis.call('RPUSH', KEYS[2], ARGV[at])
  at = at + 2 + words
end
return were
