-- ARGV: bytes of each long value that are wanted (0: all of it, and every note), bytes of the whole answer after which
-- it ends (0: none), ids. All that the server knows of jobs of this queue, at one instant.
-- Returns, for each id (for the first ones, at least one, if the answer ends before), {record, in-progress value,
-- attempts, result, {meta}, {dead letter}, {score per level}, finished ms, now ms, abort asked}. The error's text stands
-- for a job that has a key of another type than ours; without both bounds there is one id, and its error is the answer.
local head, most, total = tonumber(ARGV[1]), tonumber(ARGV[2]), 0

local function long(key)
  if head == 0 then return redis.call('GET', key) end
  local value = redis.call('GETRANGE', key, 0, head - 1)
  return value ~= '' and value
end

-- A checkpoint may be as large as a payload, and nobody lists it.
local function notes(id)
  local flat = redis.call('HGETALL', META .. id)
  if head == 0 then return flat end
  local out = {}
  for i = 1, #flat, 2 do
    local name = flat[i]
    if name == 'progress' or name == 'errors' or name == 'crashes' or name == 'handbacks' or string.sub(name, 1, 6) == 'crash:' then
      out[#out + 1] = name out[#out + 1] = flat[i + 1]
    end
  end
  return out
end

local function letter(id)
  if head == 0 then return redis.call('HGETALL', DEAD .. id) end
  local found = redis.call('HMGET', DEAD .. id, 'letter', 'queue')
  if not found[1] then return {} end
  return {'letter', string.sub(found[1], 1, head), 'queue', found[2] or ''}
end

local function look(id)
  local scores = {}
  for level = 1, 4 do scores[level] = redis.call('ZSCORE', KEYS[level], id) end
  local record, result, dead = long(JOB .. id), long(RESULT .. id), letter(id)
  total = total + #(record or '') + #(result or '')
  for i = 2, #dead, 2 do total = total + #dead[i] end
  return {
    record, redis.call('GET', HELD .. id), redis.call('GET', RETRY .. id), result, notes(id), dead, scores,
    redis.call('ZSCORE', KEYS[6], id), now, redis.call('ZSCORE', ABORT, id),
  }
end

if head == 0 and most == 0 then return {look(ARGV[3])} end
local out = {}
for i = 3, #ARGV do
  local well, found = pcall(look, ARGV[i])
  if not well then found = type(found) == 'table' and found.err or tostring(found) end
  out[#out + 1] = found
  if most > 0 and total > most then break end
end
return out
