--[[
  Make these the limits that a source has defined. What a limit has counted stays.

  Input
    ARGV  1     the source: an AgentQueue, `agentqueue up` or a worker
          then  {name, definition as JSON, which has the source}* of its limits
  Keys touched
    aq:limits
  Output
    {names of the limits that it no longer defines and that are deleted}
]]
local LIMITS = 'aq:limits'
local given, deleted = {}, {}
for i = 2, #ARGV, 2 do
  given[ARGV[i]] = true
  redis.call('HSET', LIMITS, ARGV[i], ARGV[i + 1])
end
local found = redis.call('HGETALL', LIMITS)
for i = 1, #found, 2 do
  local is_readable, definition = pcall(cjson.decode, found[i + 1])
  if is_readable and definition.source == ARGV[1] and not given[found[i]] then
    redis.call('HDEL', LIMITS, found[i])
    deleted[#deleted + 1] = found[i]
  end
end
return deleted
