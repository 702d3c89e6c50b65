-- Which keys of the queue hold another type than ours. Asked when a command on one has failed, so that what goes well
-- pays nothing for it. Returns flat {key, type}*.
local kinds = {
  [''] = 'zset', [':urgent'] = 'zset', [':high'] = 'zset', [':low'] = 'zset', [':dead'] = 'zset', [':done'] = 'zset',
  [':dead:fp'] = 'hash', [':stats'] = 'hash', [':workers'] = 'hash', [':drain'] = 'hash', [':cron'] = 'hash',
  [':limit'] = 'list', [':wake'] = 'list', [':reaped'] = 'string', [':seq'] = 'string', [':sweep'] = 'string',
}
local function look(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then foreign[#foreign + 1] = key foreign[#foreign + 1] = found end
end
for suffix, kind in pairs(kinds) do look(QUEUE .. suffix, kind) end
look(ABORT, 'zset')
look(QUEUES, 'set')
return foreign
