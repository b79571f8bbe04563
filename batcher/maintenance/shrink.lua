-- Takes questions out of a batch that waits. Their records are written in the same transaction.
-- KEYS[1] list rq:queue:... or isolated:MODEL; KEYS[2] hash rq:job:ID; ARGV: 1 batch id, 2 the batch without them, or '' if nothing is left, 3 what is left (questions)
-- Returns 1, or 0 if a worker has claimed the batch meanwhile: it then finds that these questions have records.
if redis.call('EXISTS', KEYS[2]) == 0 or redis.call('HEXISTS', KEYS[2], 'lease_token') == 1 then return 0 end
if ARGV[2] == '' then
  redis.call('LREM', KEYS[1], 1, ARGV[1])
  redis.call('DEL', KEYS[2])
else
  redis.call('HSET', KEYS[2], 'data', ARGV[2], 'questions', ARGV[3])
end
return 1
