--! include keys
-- Return when an entry of a journal was written, in ms; a wait without an answer was written last.
local function entry_time(entry)
  return tonumber(string.match(entry, '^{"is":"%a+","at":(%d+%.?%d*)') or 'inf')
end

-- Take a job's journal back to what it was before an entry: delete the entry and all that was written later. A signal that
-- a deleted wait has taken is in the mailbox again. Return false if there is no such entry.
local function cut_journal(id, field)
  local first = redis.call('HGET', JOURNAL .. id, field)
  if not first then return false end
  local from, entries = entry_time(first), redis.call('HGETALL', JOURNAL .. id)
  for i = 1, #entries, 2 do
    if entry_time(entries[i + 1]) >= from then
      redis.call('HDEL', JOURNAL .. id, entries[i])
      local signal = string.match(entries[i], '^wait:([^/]+).*#%d+$')
      if signal and string.match(entries[i + 1], '^{"is":"done","at":[%d.]+,"sent":') then
        redis.call('HINCRBY', SIGNALS .. id, 'taken:' .. string.gsub(signal, '#%d+$', ''), -1)
      end
    end
  end
  return true
end
