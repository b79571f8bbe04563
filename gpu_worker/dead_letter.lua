-- Puts aside what cannot be read, with the reason.
-- KEYS[1] stream dead; KEYS[2] hash rq:job:ID or any unused name; KEYS[3] zset leases:MODEL
-- ARGV: 1 batch id, 2 reason, 3 the bytes, 4 where it was found, 5 most dead letters, 6 TTL (s), 7 '1': the job ends too,
--   8 most bytes kept whole, 9 bytes of a letter once there are that many
-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory:
-- what is put aside makes room, and what cannot be holds up the batches that were claimed with it.
redis.call('ZREM', KEYS[3], '')
local data, size = ARGV[3], #ARGV[3]
if size > tonumber(ARGV[9]) and size + (redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 20) or 0) > tonumber(ARGV[8]) then
  data = string.sub(data, 1, ARGV[9])
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', 'batch', ARGV[1], 'reason', ARGV[2], 'data', data, 'where', ARGV[4], 'bytes', size)
redis.call('EXPIRE', KEYS[1], ARGV[6])
if ARGV[7] == '1' then
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('DEL', KEYS[2])
end
return 1
