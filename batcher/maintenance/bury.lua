-- Moves entries of a stream that are no questions to the dead letters. Behind batcher/fence.lua.
-- KEYS[1] stream dead; KEYS[2] stream questions:MODEL:P
-- ARGV: 1 most dead letters, 2 TTL (s), then for each entry: its id, the reason
-- Returns how many there were.
redis.call('XLEN', KEYS[1])
for i = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'batch', '', 'reason', ARGV[i + 1], 'data', '', 'where', KEYS[2])
  redis.call('XDEL', KEYS[2], ARGV[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return (#ARGV - 2) / 2
