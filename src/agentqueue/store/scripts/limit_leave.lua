--! include keys limits
--[[
  Take a call that waits out of the lines of its limits, since its handler no longer waits for it.

  Input
    ARGV  1     job ID
          2     place among the calls of the job that wait
          3     tenant of the job, '' for none
          then  names of the limits
  Keys touched
    as limit_reserve.lua
  Output
    nothing
]]
local ticket_name = queue .. '|' .. ARGV[2] .. '|' .. ARGV[1]
for i = 4, #ARGV do
  local limit = read_limit(ARGV[i], ARGV[3])
  if limit and redis.call('HDEL', limit.line_key, ticket_name) == 1 then wake_line(limit) end
end
return nil
