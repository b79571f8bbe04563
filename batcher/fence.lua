-- Begins every script that only the leading batcher may run. What follows it has keys and arguments of its own, which count from 1.
-- KEYS[1] string leader; ARGV[1] our token
-- Returns false if we do not lead; then nothing is changed.
local leader = table.remove(KEYS, 1)
if redis.call('GET', leader) ~= table.remove(ARGV, 1) then return false end
-- There is no such key. First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory: what the
-- batcher moves on is answered, and makes room.
redis.call('DEL', leader .. ':nothing')
