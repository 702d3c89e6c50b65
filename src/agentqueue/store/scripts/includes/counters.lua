--! include clock

-- Add to a counter of a queue: its total, and the count of this minute, which is kept for 24 hours. A minute's key with
-- a wrong type is left alone.
local function increment_counter(queue_name, counter, by)
  if by == 0 then return end
  local minute_key = queue_name .. ':stats:' .. format_number(math.floor(now / 60000))
  redis.call('HINCRBY', queue_name .. ':stats', counter, by)
  if redis.pcall('HINCRBY', minute_key, counter, by) == by then redis.call('PEXPIRE', minute_key, DAY_MS) end
end
