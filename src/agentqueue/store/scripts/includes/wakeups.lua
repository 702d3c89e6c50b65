-- Wake up to `count` idle workers of a queue. The list of wake-up tokens never holds more than 10.
local function wake_workers(queue_name, count)
  local key = queue_name .. ':wake'
  for _ = 1, math.min(count, 10 - redis.call('LLEN', key)) do redis.call('LPUSH', key, 1) end
end
