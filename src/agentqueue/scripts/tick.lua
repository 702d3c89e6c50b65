-- ARGV: cron name, tick ms, id, level, delay ms, record. Enqueues a cron's tick once over all workers: the last tick is
-- remembered, since the job of a short one may be done and forgotten before a slower worker comes to it.
-- Returns 1, or 0 if the tick was taken.
local key = QUEUE .. ':cron'
if tonumber(redis.call('HGET', key, ARGV[1]) or 0) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', key, ARGV[1], ARGV[2])
return #put(QUEUE, {ARGV[3], ARGV[4], ARGV[5], ARGV[6]}, false) == 0 and 1 or 0
