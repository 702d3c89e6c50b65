-- ARGV: id. All that the server knows of a job of this queue, at one instant.
-- Returns {record, in-progress value, attempts, result, {meta}, {dead letter}, {score per level}, finished ms, now ms,
-- abort asked}.
local id = ARGV[1]
local scores = {}
for level = 1, 4 do scores[level] = redis.call('ZSCORE', KEYS[level], id) end
return {
  redis.call('GET', JOB .. id), redis.call('GET', HELD .. id), redis.call('GET', RETRY .. id),
  redis.call('GET', RESULT .. id), redis.call('HGETALL', META .. id), redis.call('HGETALL', DEAD .. id), scores,
  redis.call('ZSCORE', KEYS[6], id), now, redis.call('ZSCORE', ABORT, id),
}
