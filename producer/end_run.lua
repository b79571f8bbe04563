-- Says how many questions a run has, once its producer knows.
-- KEYS[1] hash run:ID; ARGV: 1 number of questions, 2 epoch of the run
-- A run that expired or was lost must not come back without a fingerprint, nor another of the same id be taken for it.
if redis.call('EXISTS', KEYS[1]) == 1 and (redis.call('HGET', KEYS[1], 'epoch') or '') == ARGV[2] then redis.call('HSET', KEYS[1], 'questions', ARGV[1]) end
