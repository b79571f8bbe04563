-- Moves keys that hold what does not belong there out of the way, whole, and writes a dead letter that says where they are now.
-- KEYS[1] stream dead
-- KEYS[2] any    the key that was found to be wrong; the others are moved because they mean nothing without it
-- KEYS[3] any    aside:ID, where it goes; then each further key, and where that goes
-- ARGV: 1 reason, 2 the type that belongs there if that is what is wrong, or '', 3 most dead letters, 4 TTL (s)
-- Returns 1, or 0 if it is all right by now.
local is = redis.call('TYPE', KEYS[2]).ok
if is == 'none' or is == ARGV[2] then return 0 end

local function write_letter()
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'batch', '', 'reason', ARGV[1], 'data', '', 'where', KEYS[2], 'aside', KEYS[3])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end

-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory.
redis.call('DEL', KEYS[3])
-- A letter that cannot be written stops the script, so that nothing is moved without one: except what is in the letters' own place.
if KEYS[2] ~= KEYS[1] then write_letter() end
for i = 2, #KEYS, 2 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('RENAME', KEYS[i], KEYS[i + 1])
    redis.call('EXPIRE', KEYS[i + 1], ARGV[4])
  end
end
if KEYS[2] == KEYS[1] then write_letter() end
return 1
