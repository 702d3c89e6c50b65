--! include keys clock
-- The stream of a job has the events that it has emitted, in batches. The ID of a batch is `run-position`: a number that
-- grows with each run that adds events, and the position of its last event in the text of all events, from 0. Fields:
-- `v`, a JSON list of events; `s`, the step that emitted them, if any. The last entry of a job that has ended has the
-- field `end` instead: the job's state. The field `stream` of the job's meta hash says that there is a stream.
local STREAM_KEEP_MS = 7 * DAY_MS -- of a live job's stream, after its last event. A later run writes it again.
local MIN_STREAM_KEEP_MS = 60000 -- after the end, so that those who read get all of it whatever the result's retention

-- Return the number of events of a stream, and the least number that a new run may have; nil if there is no stream.
local function count_events(stream)
  local info = redis.pcall('XINFO', 'STREAM', stream)
  if info.err then return nil end
  local count, run = 0, now
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      run = math.max(now, tonumber(string.match(info[i + 1], '^(%d+)-')) + 1)
    elseif info[i] == 'last-entry' and info[i + 1] then
      count = tonumber(string.match(info[i + 1][1], '-(%d+)$')) + 1
    end
  end
  return count, run
end

-- Write the end of the stream of a job that is final, if it has one. It is kept as long as the job's result.
local function end_stream(id, state, keep_ms)
  local count, run = count_events(STREAM .. id)
  if not count then return end
  redis.call('XADD', STREAM .. id, format_number(run) .. '-' .. format_number(count), 'end', state)
  if keep_ms < 0 then
    redis.call('PERSIST', STREAM .. id)
  else
    redis.call('PEXPIRE', STREAM .. id, math.max(keep_ms, MIN_STREAM_KEEP_MS))
  end
end

-- Let the stream of a job that is replayed go on: its readers wait for what follows.
local function reopen_stream(id)
  local top = redis.pcall('XREVRANGE', STREAM .. id, '+', '-', 'COUNT', 1)
  if top.err or #top == 0 then return end
  if top[1][2][1] == 'end' then redis.call('XDEL', STREAM .. id, top[1][1]) end
  redis.call('PEXPIRE', STREAM .. id, STREAM_KEEP_MS)
  redis.call('HSET', META .. id, 'stream', 1)
end
