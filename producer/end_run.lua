-- Says how many questions a run has, once its producer knows.
-- KEYS[1] hash run:ID; ARGV[1] number of questions
-- A run that expired or was lost must not come back without a fingerprint.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'questions', ARGV[1]) end
