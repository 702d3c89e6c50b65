--! include keys
--[[
  Read dead letters, of whichever queue.

  Input
    ARGV  1     bytes to read of each dead letter; 0 reads all of it
          2     bytes of the whole reply after which no further one is read; 0 for no limit
          then  IDs
  Keys touched
    aq:dead:{id}
  Output
    for each ID that was read (at least one): {dead letter, queue}, or the error's text if the key has a wrong type
]]
local max_value_bytes, max_reply_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local reply, reply_bytes = {}, 0
for i = 3, #ARGV do
  local found = redis.pcall('HMGET', DEAD .. ARGV[i], 'dead_letter', 'queue')
  if found.err then
    found = found.err
  elseif found[1] then
    if max_value_bytes > 0 then found[1] = string.sub(found[1], 1, max_value_bytes) end
    reply_bytes = reply_bytes + #found[1]
  end
  reply[#reply + 1] = found
  if max_reply_bytes > 0 and reply_bytes > max_reply_bytes then break end
end
return reply
