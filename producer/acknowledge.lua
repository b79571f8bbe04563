-- Drops records that are safely on the producer's disk, and renews its claim to the run and the life of all that belongs to it.
-- KEYS[1] hash run:ID; KEYS[2] stream run:ID:records; KEYS[3] string run:ID:producer
-- ARGV: 1 our token, 2 lease (ms), 3 first record to keep, or '', 4 how many of those before it are no records, 5 TTL (s), 6 epoch of the run
-- Returns 1, or 0 if somebody else collects this run now, or it is another run of the same id, and nothing was dropped.
-- A key of a wrong type must stop the script here, before the first write, and not in the middle.
local there = redis.call('HLEN', KEYS[1]) > 0
if there and (redis.call('HGET', KEYS[1], 'epoch') or '') ~= ARGV[6] then return 0 end
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= ARGV[1] then return 0 end
-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory, and this one makes room.
local dropped = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[3] ~= '' and ARGV[3] or '0')
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
-- A run that expired or was lost must not come back as a count without a fingerprint.
if dropped > 0 and there then redis.call('HINCRBY', KEYS[1], 'acknowledged', math.max(0, dropped - ARGV[4])) end
-- All of a run ends together: without its bits, who waits for an answer for longer than that would wait in vain.
for _, part in ipairs({'', ':accepted', ':done', ':records'}) do redis.call('EXPIRE', KEYS[1] .. part, ARGV[5]) end
return 1
