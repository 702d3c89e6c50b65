--! include keys clock waits mailbox journal
--[[
  Begin waits of a running job, or ask for their answers. What a signal's wait takes leaves the mailbox in the same call
  in which it is written to the journal. Nothing happens unless the caller still holds this delivery of the job.

  Input
    ARGV  1     value of the in-progress key, of this delivery
          2     job ID
          3     field of the journal for a choice, '' for none: then only the wait with the earliest answer gets it, and
                the others of this call are forgotten
          4     number of values that follow
          then  {field, value}* to write to the job's meta hash if a wait gets its answer
          then  {field of the journal, kind, what for, ms until it ends by itself or ''}*; the kind is `signal` (what for:
                its name) or `sleep`. A wait that began in an earlier call keeps its end.
  Keys touched
    arq:in-progress:, aq:journal:, aq:signals: and aq:meta: of the job
  Output
    nothing if the caller does not hold the delivery, else
    {server time in ms, text of the choice or '', {text of each field}}; a text is a wait without an answer as
    includes/waits.lua describes it, or an answer:
      signal   {"is": "done", "at": ms, "sent": ms, "sender", "v": data}
      sleep    {"is": "done", "at": ms, "v": null}
      timeout  {"is": "raised", "at": ms, "v": null}
      choice   {"is": "done", "at": ms, "v": field}
]]
local lease, id, choice = ARGV[1], ARGV[2], ARGV[3]
if not is_delivery(id, lease) then return nil end
local journal, has_progress = JOURNAL .. id, false

local function write(field, text)
  redis.call('HSET', journal, field, text)
  return text
end

-- Return when a wait can have its answer, the state of its entry, its fields and the number of its signal; nil if it can't
-- yet. The earlier of its signal and its own end counts, whenever the call comes.
local function find_answer(wait)
  local number, text, sent
  if wait.wait == 'signal' then number, text, sent = next_signal(id, wait['for']) end
  local ends = wait['until'] or NEVER
  if number and sent <= ends then return sent, 'done', text, number end
  if ends <= now then return ends, wait.wait == 'sleep' and 'done' or 'raised', '"v":null' end
end

local function end_entry(field, state, text)
  return write(field, '{"is":"' .. state .. '","at":' .. now_text .. ',' .. text .. '}')
end

local function give_answer(field, wait, state, text, number)
  if number then redis.call('HSET', SIGNALS .. id, 'taken:' .. wait['for'], number) end
  has_progress = true
  return end_entry(field, state, text)
end

-- Return the text of a field, which is begun if it is new, and the wait that it holds if it has no answer.
local function begin(field, kind, what, end_ms)
  local text = redis.call('HGET', journal, field)
  if not text then
    note_journal(id)
    local ends = end_ms ~= '' and ',"until":' .. format_number(now + tonumber(end_ms)) or ''
    text = PENDING .. '"' .. kind .. '","for":' .. cjson.encode(what) .. ',"since":' .. now_text .. ends .. '}'
    write(field, text)
  end
  return text, is_pending(text) and cjson.decode(text)
end

local chosen = choice ~= '' and redis.call('HGET', journal, choice)
local fields, texts, first = {}, {}, nil
local waits_first = 5 + tonumber(ARGV[4])
for i = waits_first, #ARGV, 4 do
  local at, field = #texts + 1, ARGV[i]
  fields[at] = field
  if chosen then
    texts[at] = redis.call('HGET', journal, field) or ''
  else
    local text, wait = begin(unpack(ARGV, i, i + 3))
    texts[at] = text
    local found_ms, state, answer, number
    if wait then found_ms, state, answer, number = find_answer(wait) end
    if found_ms and choice == '' then
      texts[at] = give_answer(field, wait, state, answer, number)
    elseif found_ms and (not first or found_ms < first.ms) then
      first = {at = at, ms = found_ms, wait = wait, state = state, answer = answer, number = number}
    end
  end
end
if first then
  for at = 1, #fields do
    if at ~= first.at then
      redis.call('HDEL', journal, fields[at])
      texts[at] = ''
    end
  end
  texts[first.at] = give_answer(fields[first.at], first.wait, first.state, first.answer, first.number)
  chosen = end_entry(choice, 'done', '"v":' .. cjson.encode(fields[first.at]))
end
if has_progress and waits_first > 5 then redis.call('HSET', META .. id, unpack(ARGV, 5, waits_first - 1)) end
return {now, chosen or '', texts}
