-- Forgets the streams of models that nobody has asked for lately, and what is counted as pending when nothing is.
-- KEYS[1] set  queues              MODEL:P of each stream
-- KEYS[2] hash pending
-- KEYS[3] zset expiring
-- ARGV: 1 namespace, then names of streams that are to be forgotten if they are empty
-- Of each name in `queues`: stream questions:MODEL:P, list rq:queue:NAMESPACE:MODEL, zset leases:MODEL, zset newer:MODEL, list suspects:MODEL, list
--   isolated:MODEL. Whoever puts a question anywhere does so in one step, so what this step finds nowhere is nowhere.
-- Returns {questions that were counted as pending and are not, name of each stream that was forgotten ...}.
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
redis.call('SCARD', KEYS[1])
redis.call('HLEN', KEYS[2])
redis.call('ZCARD', KEYS[3])
local function length(name, kind, command)
  local is = redis.call('TYPE', name).ok
  if is == 'none' then return 0 end
  -- What is of a wrong type is for others to mend; until then there may be something.
  return is == kind and redis.call(command, name) or 1
end
local function anything_of(model)
  local of_model = ':' .. model
  return length('rq:queue:' .. ARGV[1] .. of_model, 'list', 'LLEN') + length(ARGV[1] .. ':leases' .. of_model, 'zset', 'ZCARD')
    + length(ARGV[1] .. ':newer' .. of_model, 'zset', 'ZCARD') + length(ARGV[1] .. ':suspects' .. of_model, 'list', 'LLEN')
    + length(ARGV[1] .. ':isolated' .. of_model, 'list', 'LLEN') > 0
end
-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory.
redis.call('SREM', KEYS[1], '')
local unused = {}
for i = 2, #ARGV do unused[ARGV[i]] = true end
local result, all_empty = {0}, true
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local stream, model = ARGV[1] .. ':questions:' .. name, name:match('^(.+):%d$')
  if not model or length(stream, 'stream', 'XLEN') > 0 or anything_of(model) then
    all_empty = false
  elseif unused[name] then
    redis.call('DEL', stream)
    redis.call('SREM', KEYS[1], name)
    redis.call('ZREM', KEYS[3], name)
    table.insert(result, name)
  end
end
-- What was dropped from the dead letters, or taken out by hand, was counted and never ends.
local pending = tonumber(redis.call('HGET', KEYS[2], 'questions') or 0)
if all_empty and pending and pending > 0 then
  redis.call('HSET', KEYS[2], 'questions', 0, 'bytes', 0)
  result[1] = pending
end
return result
