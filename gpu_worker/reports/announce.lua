-- A worker that does not serve yet says so. Unlike heartbeat.lua, it renews no batches and is not chosen for isolated ones.
-- KEYS[1] zset workers; KEYS[2] hash worker:NAME; KEYS[3] string control:NAME
-- ARGV: 1 worker, 2 TTL of the report (ms), then the fields of the report as name, value
-- Returns what the worker is asked to do, or ''.
-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory.
redis.call('ZREM', KEYS[1], '')
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call('GET', KEYS[3]) or ''
