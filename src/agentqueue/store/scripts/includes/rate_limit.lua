--! include keys clock
-- The rate limit allows at most `max_starts` starts in any window. `starts_key` is a list of the times of the last
-- starts, with the oldest at the tail.

-- Return how many of `wanted` jobs may start now, and the ms until the next may start (-1: no limit applies).
local function allowed_starts(wanted, max_starts, window_ms)
  if max_starts == 0 then return wanted, -1 end
  local length = redis.call('LLEN', starts_key)
  while length > 0 and length + wanted > max_starts do
    local oldest = tonumber(redis.call('LINDEX', starts_key, -1))
    if oldest + window_ms > now then return math.max(max_starts - length, 0), oldest + window_ms - now end
    redis.call('RPOP', starts_key)
    length = length - 1
  end
  return math.min(wanted, max_starts), -1
end

-- Record that `count` jobs start now.
local function record_starts(count, max_starts, window_ms)
  if max_starts == 0 or count == 0 then return end
  for _ = 1, count do redis.call('LPUSH', starts_key, format_number(now)) end
  redis.call('PEXPIRE', starts_key, window_ms)
end
