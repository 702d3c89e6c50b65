--! include keys clock batches leases counters wakeups
local REAP_INTERVAL_MS = 4000 -- the longest time between two reaps; a longer one means an outage
local MAX_MOVED_LEASES = 5000 -- per level, bounds the work after the clock has gone back

-- Shorten the leases of a level by the time that the clock has gone back. Otherwise the leases of a dead worker would
-- run that much longer. Live workers renew theirs before anything is reaped.
local function shorten_leases(level, by_ms)
  local found = redis.call(
    'ZRANGEBYSCORE', level_keys[level], '-inf', '(' .. format_number(-now), 'WITHSCORES', 'LIMIT', 0, MAX_MOVED_LEASES
  )
  local scores = {}
  for i = 1, #found, 2 do
    scores[#scores + 1] = format_number(math.min(tonumber(found[i + 1]) + by_ms, -1))
    scores[#scores + 1] = found[i]
  end
  add_scores(level_keys[level], scores, 'XX')
end

-- Release up to `max_jobs` jobs whose lease has expired, and return how many.
-- If nobody has reaped for REAP_INTERVAL_MS (an outage, a failover, a jump of the clock), live workers could not renew
-- either: nothing is reaped for another interval. So callers must reap more often than once per interval.
local function reap_expired_leases(max_jobs)
  local last_reap, hold_until = string.match(redis.call('GET', reaped_key) or '', '^(%d+)|(%d+)$')
  last_reap, hold_until = tonumber(last_reap or 0), tonumber(hold_until or 0)
  if now - last_reap > REAP_INTERVAL_MS or now < last_reap then hold_until = now + REAP_INTERVAL_MS end
  redis.call('SET', reaped_key, format_number(now) .. '|' .. format_number(hold_until))
  if now < last_reap then
    for level = 1, 4 do shorten_leases(level, last_reap - now) end
  end
  local reaped, crashed = 0, 0
  if now < hold_until then return reaped end
  for level = 1, 4 do
    local ids = redis.call(
      'ZRANGEBYSCORE', level_keys[level], '(' .. format_number(-now), '(0', 'LIMIT', 0, max_jobs - reaped
    )
    local leases = get_all(IN_PROGRESS, ids)
    for i = 1, #ids do
      local arq_ms = leases[i] and not parse_lease(leases[i]) and redis.call('PTTL', IN_PROGRESS .. ids[i]) or -1
      if arq_ms >= 0 then -- A plain arq worker still holds the job; its keys always expire.
        redis.call('ZADD', level_keys[level], 'XX', -(now + math.max(arq_ms, 1000)), ids[i])
      else
        crashed = crashed + release_after_crash(level, ids[i], leases[i], 'the lease expired')
        reaped = reaped + 1
      end
    end
    if reaped >= max_jobs then break end
  end
  increment_counter(queue, 'crashed', crashed)
  if reaped > 0 then wake_workers(queue, reaped) end
  return reaped
end
