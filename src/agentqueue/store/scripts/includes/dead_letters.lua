--! include keys wrong_types journal

-- Delete the dead letter of a job and its index entries. Return the letter's queue, or false if there is no letter.
-- keep_journal: the job goes on; else the ID may be used for another one, which must not inherit the journal.
local function delete_dead_letter(id, keep_journal)
  local dead_queue, fingerprint, has_journal = unpack(call_or_reset('HMGET', DEAD .. id, 'queue', 'fp', 'journal'))
  if dead_queue then
    local index = dead_queue .. ':dead'
    redis.call('ZREM', index, id)
    if call_or_reset('ZREM', index .. ':fp:' .. fingerprint, id) == 1
      and redis.call('HINCRBY', index .. ':fp', fingerprint, -1) <= 0 then
      redis.call('HDEL', index .. ':fp', fingerprint)
    end
    redis.call('DEL', DEAD .. id)
    if has_journal and not keep_journal then delete_journal(id) end
  end
  return dead_queue
end
