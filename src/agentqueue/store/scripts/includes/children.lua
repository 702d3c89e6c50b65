--! include keys clock wrong_types journal suspension
-- The jobs that a job waits for are its children. They are listed on the parent's side, so that the parent is woken
-- whatever becomes of a child's record:
--   aq:children:{parent}, a hash
--     {child ID}         state, queue, fingerprint, round and call of the child, then the gathers that wait for it (fields
--                        of the journal), each on a line. The state is `pending`, `done`, `failed`, `seen` (the parent
--                        knows the failure) or `kept`: it is a result of the gathers that follow, which took it along.
--     #enqueueing, #salt  of which job with this ID the children are, and what makes their IDs unique
--     #round             number of replays of the parent. A failure of an earlier round does not count any more.
--     #sent, #ended, #bytes  number of children, number of those that are final, size of what they have returned
--     #cursor            where the next search for lost children starts
--   aq:returns:{parent}, a hash {child ID} -> {"v": value} or {"e": error}
-- A gather that has no answer yet is a wait in the journal (includes/waits.lua) with counts at its end. It is complete
-- with `need` children that are done, with `limit` that failed, or with all `of` them. From then on its text starts with
-- `{"came":`, until gather.lua writes its answer.
local MAX_RETURNS_BYTES = 16777216 -- 16 MiB; a parent reads all results of a gather at once
local TOO_LARGE = '{"e":{"state":"completed","type":"ResultsTooLarge","message":"the results of the children of a job may '
  .. 'have 16 MiB in all; store the bulk elsewhere and return references"}}'
local CANCELLED = '{"e":{"state":"cancelled","type":"Cancelled","message":"it was cancelled"}}'

-- Return ID and queue of the parent that waits for a job, by the beginning of the job's record; nothing if none does.
local function waiting_parent(record)
  return string.match(record or '', '^{"aq":1,"up":%["([^"]+)","([^"]+)"')
end

-- Return state, queue, fingerprint, round, call and gathers of a child. Each gather has a line break before it.
local function decode_child(entry)
  return string.match(entry, '^(%l+)\n([^\n]*)\n([^\n]*)\n(%d+)\n([^\n]*)(.*)$')
end

local function encode_child(state, child_queue, fingerprint, round, call, gathers)
  return table.concat({state, child_queue, fingerprint, round, call}, '\n') .. gathers
end

local function is_complete(need, limit, total, done, failed)
  return done >= need or failed >= limit or done + failed >= total
end

-- Add to the counts of a gather. Return whether this has made it complete, which nothing can once its time is over.
local function count_in_gather(parent, field, done_by, failed_by)
  local text = redis.call('HGET', JOURNAL .. parent, field) or ''
  local state, rest, need, limit, total, done, failed =
    string.match(text, '^{"(%l+)"(.*"need":(%d+),"limit":(%d+),"of":(%d+),"done":)(%d+),"failed":(%d+)}$')
  if state ~= 'wait' and state ~= 'came' then return false end
  done, failed = tonumber(done) + done_by, tonumber(failed) + failed_by
  local is_late = state == 'wait' and tonumber(string.match(rest, '"until":(%d+),') or NEVER) <= now
  local has_come = not is_late and is_complete(tonumber(need), tonumber(limit), tonumber(total), done, failed)
  text = string.format('{"%s"%s%d,"failed":%d}', has_come and 'came' or 'wait', rest, done, failed)
  redis.call('HSET', JOURNAL .. parent, field, text)
  return has_come and state == 'wait'
end

-- Parents of which this call has completed a gather: ID -> queue.
local parents_to_wake = {}

-- Store what a child that is final returns to its parent, of any queue, and count it in the gathers that wait for it. The
-- first return of a child counts. It is dropped if the parent is final, or does not list the child for another reason.
local function return_to_parent(parent, parent_queue, child, value)
  local children = CHILDREN .. parent
  local entry = call_or_reset('HGET', children, child)
  if not entry then return end
  local state, child_queue, fingerprint, round, call, gathers = decode_child(entry)
  if state ~= 'pending' then return end
  if redis.call('HINCRBY', children, '#bytes', #value) > MAX_RETURNS_BYTES then
    redis.call('HINCRBY', children, '#bytes', #TOO_LARGE - #value)
    value = TOO_LARGE
  end
  local is_done = string.sub(value, 1, 5) == '{"v":'
  call_or_reset('HSET', RETURNS .. parent, child, value)
  state = is_done and 'done' or 'failed'
  redis.call('HSET', children, child, encode_child(state, child_queue, fingerprint, round, call, gathers))
  redis.call('HINCRBY', children, '#ended', 1)
  for field in string.gmatch(gathers, '[^\n]+') do
    if count_in_gather(parent, field, is_done and 1 or 0, is_done and 0 or 1) then
      parents_to_wake[parent] = parent_queue
    end
  end
end

-- Delete what a child has returned, since it is sent or replayed again. `round`: of the parent's replays.
local function take_back(parent, child, entry, round)
  local children = CHILDREN .. parent
  local state, child_queue, fingerprint, _, call, gathers = decode_child(entry)
  redis.call('HSET', children, child, encode_child('pending', child_queue, fingerprint, round, call, gathers))
  if state == 'pending' then return end
  redis.call('HINCRBY', children, '#ended', -1)
  local size = redis.call('HSTRLEN', RETURNS .. parent, child)
  redis.call('HINCRBY', children, '#bytes', -size)
  redis.call('HDEL', RETURNS .. parent, child)
  for field in string.gmatch(gathers, '[^\n]+') do count_in_gather(parent, field, 0, -1) end
end

-- Return whether the failure of a child stands: an answer in the parent's journal has it among its results, so that a
-- replay of the parent goes on from it.
local function stands(parent, entry)
  local state, _, _, _, _, gathers = decode_child(entry)
  if state ~= 'kept' then return false end
  for field in string.gmatch(gathers, '[^\n]+') do
    if has_ended(call_or_reset('HGET', JOURNAL .. parent, field) or '') then return true end
  end
  return false
end

-- Take back the failure of a child that is replayed, unless its parent knows of it. A dead parent knows, but asks again
-- when it is replayed, unless the failure stands.
local function take_back_failure(parent, child)
  local entry = call_or_reset('HGET', CHILDREN .. parent, child)
  if not entry then return end
  local state, _, _, round = decode_child(entry)
  local is_asked_for_again = state ~= 'pending' and state ~= 'done' and redis.call('EXISTS', JOB .. parent) == 0
  if state == 'failed' or (is_asked_for_again and not stands(parent, entry)) then
    take_back(parent, child, entry, round)
  end
end

-- Wake the parents of which a gather is complete. Call it after all other writes of the script.
local function wake_parents()
  for parent, parent_queue in pairs(parents_to_wake) do wake_suspended(parent_queue, parent) end
end
