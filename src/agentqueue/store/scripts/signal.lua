--! include keys clock counters mailbox suspension
--[[
  Send a signal to a job: it goes to the end of the job's mailbox, and wakes the job if it is suspended for it.

  Input
    ARGV  1  job ID
          2  name of the signal
          3  its data, JSON
          4  its sender, JSON: a string or null
          5  ID of the signal, which counts once; '' for none
          6  number of signals that a mailbox may have
          7  bytes that a mailbox may have
  Keys touched
    the levels, {queue}:done, {queue}:suspended:*, {queue}:mailboxes, {queue}:wake, {queue}:wake:{owner}, counters;
    aq:signals:, aq:meta:, arq:in-progress:, arq:result: and aq:dead: of the job
  Output
    'sent', 'known' (a signal with that ID was sent before), 'full' (the mailbox is), 'final' (the job has ended) or
    'unknown'
]]
local id, name, data, sender, signal_id = unpack(ARGV, 1, 5)
local max_count, max_bytes = tonumber(ARGV[6]), tonumber(ARGV[7])
local level, score = find_place(queue, id)
if not level then
  local is_final = redis.call('EXISTS', RESULT .. id, DEAD .. id) > 0 or redis.call('ZSCORE', done_key, id)
  return is_final and 'final' or 'unknown'
end
local mailbox = SIGNALS .. id
local is_first_note = note_journal(id)
if signal_id ~= '' and redis.call('HEXISTS', mailbox, 'id:' .. signal_id) == 1 then return 'known' end
local count, bytes = unpack(redis.call('HMGET', mailbox, 'count', 'bytes'))
if tonumber(count or 0) >= max_count or tonumber(bytes or 0) + #data > max_bytes then return 'full' end
local number = redis.call('HINCRBY', mailbox, 'sent:' .. name, 1)
local text = '"sent":' .. now_text .. ',"sender":' .. sender .. ',"v":' .. data
redis.call('HSET', mailbox, 'in:' .. name .. '#' .. number, text)
redis.call('HINCRBY', mailbox, 'count', 1)
redis.call('HINCRBY', mailbox, 'bytes', #data)
if signal_id ~= '' then redis.call('HSET', mailbox, 'id:' .. signal_id, number) end
-- The worker that holds the job does not know of the mailbox, so housekeeping looks whether it is left behind.
if is_first_note and score < 0 then redis.call('ZADD', queue .. ':mailboxes', now_text, id) end
increment_counter(queue, 'signalled', 1)
wake_suspended(queue, id, name)
return 'sent'
