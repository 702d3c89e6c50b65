--! include keys wrong_types
-- The mailbox of a job: a hash with the signals that were sent to it, in the order of each name. Its fields:
--   in:NAME#K   the K-th signal of a name: `"sent":ms,"sender":…,"v":…`, a JSON object without its braces
--   sent:NAME   number of signals of that name; taken:NAME: how many of them waits have taken
--   id:ID       a signal that was sent with an ID, which counts once
--   count, bytes  number and size of all signals

-- Return the next signal of a name that no wait has taken: its number, its text and when it was sent, in ms. Return nil
-- if there is none.
local function next_signal(id, name)
  local sent, taken = unpack(redis.call('HMGET', SIGNALS .. id, 'sent:' .. name, 'taken:' .. name))
  local number = tonumber(taken or 0) + 1
  if number > tonumber(sent or 0) then return nil end
  local text = redis.call('HGET', SIGNALS .. id, 'in:' .. name .. '#' .. number)
  return number, text, tonumber(string.match(text, '^"sent":(%d+)'))
end

-- Note in a job's meta hash that it has a journal or a mailbox, so that they are deleted with it. A mailbox without this
-- note and without a journal was left by an earlier job with the same ID. Return whether the note is new.
local function note_journal(id)
  if call_or_reset('HSET', META .. id, 'journal', 1) == 0 then return false end
  if redis.call('EXISTS', JOURNAL .. id) == 0 then redis.call('DEL', SIGNALS .. id) end
  return true
end
