--! include keys clock errors
--[[
  Read all that the server knows of jobs of this queue, at one instant.

  Input
    ARGV  1     bytes to read of each record, result and dead letter; 0 reads all of it, and every note
          2     bytes of the whole reply after which no further job is read; 0 for no limit
          then  IDs; exactly one if both limits are 0
  Keys touched
    the levels, {queue}:done, arq:abort; arq:job:, arq:in-progress:, arq:retry:, arq:result:, aq:meta:, aq:dead: and
    aq:children: of each job
  Output
    for each ID that was read (at least one)
      {record, in-progress value, attempts, result, {meta}, {dead letter}, {score per level}, finished ms, now ms,
       cancel requested at ms, {number of children that it waits for, number of these that have ended},
       {field, entry without its value}* of its steps, unless the bytes to read are limited}
    or, if a key of the job has a wrong type, the error's text; if both limits are 0, the call fails with that error
]]
local max_value_bytes, max_reply_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local NOTES_IN_LISTS = {
  progress = true, errors = true, crashes = true, releases = true, suspended = true, suspensions = true,
}
local reply_bytes = 0

local function read_value(key)
  if max_value_bytes == 0 then return redis.call('GET', key) end
  local value = redis.call('GETRANGE', key, 0, max_value_bytes - 1)
  return value ~= '' and value
end

-- Lists leave out a checkpoint, which may be as large as a payload.
local function read_notes(id)
  local notes = redis.call('HGETALL', META .. id)
  if max_value_bytes == 0 then return notes end
  local listed = {}
  for i = 1, #notes, 2 do
    local name = notes[i]
    if NOTES_IN_LISTS[name] or string.sub(name, 1, 6) == 'crash:' then
      listed[#listed + 1] = name
      listed[#listed + 1] = notes[i + 1]
    end
  end
  return listed
end

local function read_dead_letter(id)
  if max_value_bytes == 0 then return redis.call('HGETALL', DEAD .. id) end
  local dead_letter, dead_queue = unpack(redis.call('HMGET', DEAD .. id, 'dead_letter', 'queue'))
  if not dead_letter then return {} end
  return {'dead_letter', string.sub(dead_letter, 1, max_value_bytes), 'queue', dead_queue or ''}
end

local function count_children(id)
  if redis.call('HEXISTS', META .. id, 'journal') == 0 then return {} end
  return redis.call('HMGET', CHILDREN .. id, '#sent', '#ended')
end

local function read_steps(id)
  if max_value_bytes ~= 0 then return {} end
  if redis.call('HEXISTS', META .. id, 'journal') + redis.call('HEXISTS', DEAD .. id, 'journal') == 0 then return {} end
  local entries, steps = redis.call('HGETALL', JOURNAL .. id), {}
  for i = 1, #entries, 2 do
    if string.sub(entries[i], 1, 5) == 'step:' then
      steps[#steps + 1] = entries[i]
      local entry = entries[i + 1]
      local _, before_value = string.find(entry, ',"v":', 1, true)
      steps[#steps + 1] = string.sub(entry, 1, before_value or #entry)
    end
  end
  return steps
end

local function inspect(id)
  local scores = {}
  for level = 1, 4 do scores[level] = redis.call('ZSCORE', level_keys[level], id) end
  local record, result, dead_letter = read_value(JOB .. id), read_value(RESULT .. id), read_dead_letter(id)
  reply_bytes = reply_bytes + #(record or '') + #(result or '')
  for i = 2, #dead_letter, 2 do reply_bytes = reply_bytes + #dead_letter[i] end
  return {
    record, redis.call('GET', IN_PROGRESS .. id), redis.call('GET', RETRY .. id), result, read_notes(id), dead_letter,
    scores, redis.call('ZSCORE', done_key, id), now, redis.call('ZSCORE', ABORT, id), count_children(id),
    read_steps(id),
  }
end

if max_value_bytes == 0 and max_reply_bytes == 0 then return {inspect(ARGV[3])} end
local reply = {}
for i = 3, #ARGV do
  local ok, found = pcall(inspect, ARGV[i])
  reply[#reply + 1] = ok and found or error_text(found)
  if max_reply_bytes > 0 and reply_bytes > max_reply_bytes then break end
end
return reply
