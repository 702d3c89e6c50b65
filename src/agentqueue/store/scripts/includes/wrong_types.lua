-- Keys that hold another Redis type than AgentQueue writes, because another program has overwritten them.

-- Keys of jobs that this call has found with a wrong type, for the reply: flat {key, type}*.
local wrong_type_keys = {}

-- Run a command on a key that the job can do without (its notes, its dead letter, an index). If the key has a wrong
-- type, delete it, report it in `wrong_type_keys`, and run the command again.
local function call_or_reset(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply, 0) end
  wrong_type_keys[#wrong_type_keys + 1] = key
  wrong_type_keys[#wrong_type_keys + 1] = redis.call('TYPE', key).ok
  redis.call('DEL', key)
  return redis.call(command, key, ...)
end

-- Add 1 to a field of a hash, and return the new value. A value that is not a number was not written by AgentQueue and
-- counts as 0.
local function increment_field(key, field)
  local value = redis.pcall('HINCRBY', key, field, 1)
  if type(value) == 'number' then return value end
  call_or_reset('HSET', key, field, 1)
  return 1
end
