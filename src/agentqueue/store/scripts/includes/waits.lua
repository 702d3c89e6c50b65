--! include keys clock batches mailbox
-- The waits of a job in its journal. A field of the journal whose text begins with PENDING is a wait without an answer:
-- {"wait": kind, "for": what it waits for, "since": ms, "until": ms, if it ends by itself}. Any other text is an answer.
local PENDING = '{"wait":'

local function is_pending(text) return text and string.sub(text, 1, #PENDING) == PENDING end

-- Return the waits of these fields that have no answer yet, decoded, and the number of fields that have one.
local function read_pending(id, fields)
  local pending, answered = {}, 0
  for i = 1, #fields, MAX_ARGUMENTS do
    local texts = redis.call('HMGET', JOURNAL .. id, unpack(fields, i, math.min(i + MAX_ARGUMENTS - 1, #fields)))
    for _, text in ipairs(texts) do
      if is_pending(text) then
        pending[#pending + 1] = cjson.decode(text)
      else
        answered = answered + 1
      end
    end
  end
  return pending, answered
end

-- Return whether a wait can have its answer now: its time has come, or its signal is there.
local function has_answer(id, wait)
  if wait['until'] and wait['until'] <= now then return true end
  return wait.wait == 'signal' and next_signal(id, wait['for']) ~= nil
end
