-- Gives back what a dead worker held, 500 running jobs looked at a call.
-- ARGV: 1 prefix of what the in-progress keys hold (worker id and `/`, or an owner and `|`), 2 an owner to spare or '', 3 why, 4 offset into the running jobs.
-- Returns {given back, next offset or -1 when all were looked at}.
local prefix, spare, why, offset = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local given, looked, budget = 0, 0, 500
for level = 1, 4 do
  local running = redis.call('ZCOUNT', KEYS[level], '-inf', '(0')
  if offset >= running then
    offset = offset - running
  else
    local ids = redis.call('ZRANGEBYSCORE', KEYS[level], '-inf', '(0', 'LIMIT', offset, budget - looked)
    local held = mget(HELD, ids)
    for i = 1, #ids do
      if held[i] and string.sub(held[i], 1, #prefix) == prefix and not (spare ~= '' and is_held_by(held[i], spare)) then
        give_back(level, ids[i], held[i], why)
        given = given + 1
      end
    end
    looked, offset = looked + #ids, 0
    if looked >= budget then break end
  end
end
count(QUEUE, 'crashed', given)
if given > 0 then wake(QUEUE, given) end
return {given, looked >= budget and tonumber(ARGV[4]) + looked - given or -1}
