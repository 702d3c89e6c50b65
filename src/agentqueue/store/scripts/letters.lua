-- ARGV: bytes of each letter that are wanted (0: all of it), bytes of the whole answer after which it ends (0: none), ids.
-- Returns, for each id (for the first ones, at least one, if the answer ends before), {letter, queue}; the error's text
-- stands for a letter whose key has another type than ours.
local head, most, total, out = tonumber(ARGV[1]), tonumber(ARGV[2]), 0, {}
for i = 3, #ARGV do
  local found = redis.pcall('HMGET', DEAD .. ARGV[i], 'letter', 'queue')
  if found.err then
    found = found.err
  elseif found[1] then
    if head > 0 then found[1] = string.sub(found[1], 1, head) end
    total = total + #found[1]
  end
  out[#out + 1] = found
  if most > 0 and total > most then break end
end
return out
