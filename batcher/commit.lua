-- Makes changes, all in one step, if the caller leads. It is no MULTI/EXEC: when Redis is full, that refuses whatever is queued for it.
-- KEYS[1] string leader; then keys that the changes add to
-- ARGV: 1 our token, then for each further key the type that it must be of; then for each command how many words it has, and those. EVALSHA is
--   not run but looked up among `scripts`: a script may run no other.
-- Returns {1, what the last command returned}, {0} if we do not lead, or {-1, key, its type} if one is of another type; then nothing was changed.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0} end
for i = 2, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if is ~= 'none' and is ~= ARGV[i] then return {-1, KEYS[i], is} end
end
-- There is no such key. First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory: what the
-- batcher moves on is answered, and makes room.
redis.call('DEL', KEYS[1] .. ':nothing')
local at, result = #KEYS + 1, nil
while at <= #ARGV do
  local last = at + ARGV[at]
  if ARGV[at + 1] == 'EVALSHA' then
    local keys, args, first = {}, {}, at + 4 + ARGV[at + 3]
    for i = at + 4, last do table.insert(i < first and keys or args, ARGV[i]) end
    result = scripts[ARGV[at + 2]](keys, args)
  else
    result = redis.call(unpack(ARGV, at + 1, last))
  end
  at = last + 1
end
return {1, result}
