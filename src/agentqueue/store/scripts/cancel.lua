-- ARGV: id, result, keep ms. A waiting job is cancelled at once; a running one's worker is asked to.
-- Returns cancelled, asked, final (too late) or unknown.
local id, keep_ms = ARGV[1], tonumber(ARGV[3])
if redis.call('EXISTS', RESULT .. id, DEAD .. id) > 0 and redis.call('EXISTS', JOB .. id) == 0 then return 'final' end
local level
for i = 1, 4 do if redis.call('ZSCORE', KEYS[i], id) then level = i end end
if not level then return redis.call('ZSCORE', KEYS[6], id) and 'final' or 'unknown' end
if redis.call('EXISTS', HELD .. id) == 1 then
  redis.call('ZADD', ABORT, now, id)
  return 'asked'
end
redis.call('ZREM', KEYS[level], id)
redis.call('DEL', JOB .. id, RETRY .. id, META .. id)
redis.call('ZREM', ABORT, id)
if keep_ms ~= 0 then redis.call('SET', RESULT .. id, ARGV[2], 'PX', keep_ms) end
count(QUEUE, 'cancelled', 1)
return 'cancelled'
