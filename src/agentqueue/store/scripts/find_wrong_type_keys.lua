--! include keys
--[[
  Find the keys of the queue that hold another Redis type than AgentQueue writes. It is called when a command on one of
  them has failed, so that calls that succeed do not pay for it.

  Input
    none
  Keys touched
    all keys of the queue, arq:abort, aq:cascades, aq:queues (TYPE only)
  Output
    flat {key, type}*
]]
local TYPES = {
  [''] = 'zset', [':urgent'] = 'zset', [':high'] = 'zset', [':low'] = 'zset', [':dead'] = 'zset', [':done'] = 'zset',
  [':dead:fp'] = 'hash', [':stats'] = 'hash', [':workers'] = 'hash', [':drain'] = 'hash', [':cron'] = 'hash',
  [':schedules'] = 'hash', [':ticks'] = 'hash', [':registration'] = 'hash', [':registration:templates'] = 'hash',
  [':limit'] = 'list', [':wake'] = 'list', [':reaped'] = 'string', [':seq'] = 'string', [':sweep'] = 'string',
}
local found = {}
local function check(key, expected)
  local actual = redis.call('TYPE', key).ok
  if actual ~= 'none' and actual ~= expected then
    found[#found + 1] = key
    found[#found + 1] = actual
  end
end
for suffix, expected in pairs(TYPES) do check(queue .. suffix, expected) end
check(ABORT, 'zset')
check(CASCADES, 'list')
check(QUEUES, 'set')
return found
