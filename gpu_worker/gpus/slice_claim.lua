-- Leases GPUs to a worker: all of them, or none.
-- KEYS: string gpu:UUID of each GPU wanted; holds the worker that has it, and expires with the lease
-- ARGV: 1 worker, 2 lease (ms). The server's clock ends leases; no worker's clock has a say.
-- Returns 1, or 0 if another worker has one of them.
for _, key in ipairs(KEYS) do
  local holder = redis.call('GET', key)
  if holder and holder ~= ARGV[1] then return 0 end
end
-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory:
-- a lease that is not renewed for that reason would go to another worker, and this one's engine end.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1], 'PX', ARGV[2]) end
return 1
