--! include keys
--[[
  Request that a worker drains: it claims no more jobs. The worker reads the request with its next renewal.

  Input
    ARGV  worker ID; time of the request in ms; how long all drain requests of the queue are kept from now on in ms, or
          '' for ever
  Keys touched
    {queue}:drain
  Output
    none
]]
local worker, requested_ms, keep_ms = ARGV[1], ARGV[2], ARGV[3]
redis.call('HSET', drain_key, worker, requested_ms)
if keep_ms ~= '' then redis.call('PEXPIRE', drain_key, keep_ms) end
