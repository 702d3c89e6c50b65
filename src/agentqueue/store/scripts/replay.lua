-- ARGV: ids of dead letters. Each goes back to its queue's end, with its attempts counted anew.
-- Returns a status per id: replayed, unknown, live (the id runs again already) or bare (its record is gone).
local function replay(id)
  local letter = redis.call('HMGET', DEAD .. id, 'queue', 'level', 'record')
  if letter[1] ~= QUEUE then return 'unknown' end
  if redis.call('EXISTS', JOB .. id) == 1 then return 'live' end
  if not letter[3] then return 'bare' end
  drop_dead(id)
  redis.call('DEL', RESULT .. id, RETRY .. id, META .. id)
  put(QUEUE, {id, letter[2], 0, letter[3]}, true)
  count(QUEUE, 'replayed', 1)
  return 'replayed'
end
local out = {}
for i = 1, #ARGV do out[i] = replay(ARGV[i]) end
return out
