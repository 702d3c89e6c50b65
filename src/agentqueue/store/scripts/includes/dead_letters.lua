--! include keys wrong_types

-- Delete the dead letter of a job and its index entries. Return the letter's queue, or false if there is no letter.
local function delete_dead_letter(id)
  local dead_queue, fingerprint = unpack(call_or_reset('HMGET', DEAD .. id, 'queue', 'fp'))
  if dead_queue then
    local index = dead_queue .. ':dead'
    redis.call('ZREM', index, id)
    if call_or_reset('ZREM', index .. ':fp:' .. fingerprint, id) == 1
      and redis.call('HINCRBY', index .. ':fp', fingerprint, -1) <= 0 then
      redis.call('HDEL', index .. ':fp', fingerprint)
    end
    redis.call('DEL', DEAD .. id)
  end
  return dead_queue
end
