-- Ends questions that nobody wants: writes their records, and takes them out of where they were, in one step. Behind batcher/fence.lua, and
-- wire/publish.lua as the function `publish`.
-- KEYS[1] hash pending; KEYS[2] zset runs; KEYS[3] stream questions:MODEL:P, or list rq:queue:... or isolated:MODEL; KEYS[4] hash rq:job:ID of the
--   batch that they are in, or the stream again; then for each run: hash run:ID, bitmap run:ID:done, stream run:ID:records
-- ARGV: 1 TTL of a run (s), 2 id of the batch that they are in, or '', 3 the batch without them, or '' if nothing is left, 4 what is left
--   (questions), 5 how many entries leave the stream, then their ids; then for each run: its id, its epoch, how many words its records are, and
--   those, as publish.lua takes them
-- Returns how many records were first.
local entries = tonumber(ARGV[5])
local at, number, first = 6 + entries, 5, 0
while at <= #ARGV do
  local words = tonumber(ARGV[at + 2])
  local written = publish(
    {KEYS[number], KEYS[number + 1], KEYS[number + 2], KEYS[1], KEYS[2]},
    {ARGV[at], ARGV[1], ARGV[at + 1], unpack(ARGV, at + 3, at + 2 + words)}
  )
  first = first + math.max(0, written)
  at, number = at + 3 + words, number + 3
end
if ARGV[2] == '' then
  redis.call('XDEL', KEYS[3], unpack(ARGV, 6, 5 + entries))
-- If a worker has claimed the batch meanwhile, it finds that these questions have records.
elseif redis.call('EXISTS', KEYS[4]) == 1 and redis.call('HEXISTS', KEYS[4], 'lease_token') == 0 then
  if ARGV[3] == '' then
    redis.call('LREM', KEYS[3], 1, ARGV[2])
    redis.call('DEL', KEYS[4])
  else
    redis.call('HSET', KEYS[4], 'data', ARGV[3], 'questions', ARGV[4])
  end
end
return first
