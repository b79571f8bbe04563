-- Says of single questions that nobody wants them any more, and of others that they have ended. Workers hear of it with their next heartbeat.
-- KEYS[1] zset withdrawn: RUN:EPOCH:INDEX -> since when (ms)
-- ARGV: 1 how long that is kept (ms), 2 most that are kept, 3 how many are withdrawn, then those, then those that have ended
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
for i = 4, #ARGV do
  if i <= 3 + ARGV[3] then redis.call('ZADD', KEYS[1], now, ARGV[i]) else redis.call('ZREM', KEYS[1], ARGV[i]) end
end
-- What is dropped here is answered for nobody, which harms nobody.
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
