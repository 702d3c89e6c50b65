--! include keys clock
-- The journal of a job: a hash with an entry for each of its durable calls. It has a key of its own, beside the mailbox
-- of its signals and the results of its children, and the field `journal` of the job's meta hash says that there are
-- such keys. An entry is JSON that starts with `{"is":"STATE","at":MS,`; an entry that is done or raised has ended.

-- Return whether a worker's delivery of a job goes on. A delivery is known by its whole in-progress value: its owner
-- alone would not distinguish it from a later delivery to the same process.
local function is_delivery(id, lease)
  return redis.call('MGET', IN_PROGRESS .. id)[1] == lease
end

-- The time of an entry, in ms with microseconds, so that steps of one millisecond keep their order.
local at_text = string.format('%s%03d.%03d', time[1], math.floor(time[2] / 1000), time[2] % 1000)

local function has_ended(entry)
  local state = string.match(entry, '^{"is":"(%a+)"')
  return state == 'done' or state == 'raised'
end

-- Write an entry of the journal, unless the one that stands there has ended. Return false, or the entry that stands.
-- body: JSON of the entry without its state and its time, with at least one field.
local function write_entry(id, field, state, body)
  local entry = '{"is":"' .. state .. '","at":' .. at_text .. ',' .. string.sub(body, 2)
  if redis.call('HSETNX', JOURNAL .. id, field, entry) == 1 then return false end
  local found = redis.call('HGET', JOURNAL .. id, field)
  if has_ended(found) then return found end
  redis.call('HSET', JOURNAL .. id, field, entry)
  return false
end

-- Delete the journal of a job, the mailbox of its signals and the results of its children.
local function delete_journal(id)
  redis.call('UNLINK', JOURNAL .. id, SIGNALS .. id, CHILDREN .. id, RETURNS .. id)
end
