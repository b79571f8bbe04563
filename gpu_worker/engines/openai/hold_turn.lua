-- Keeps or ends a worker's turn to ask a question alone. One that lapsed and went to another stays the other's.
-- KEYS[1] string turn:MODEL; ARGV[1] token, ARGV[2] for how long (ms), 0 to end it
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
