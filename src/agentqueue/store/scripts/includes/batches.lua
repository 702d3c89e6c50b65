-- Commands on lists of any length. Lua's `unpack` fails above about 8,000 values, when earlier writes have happened.
local MAX_ARGUMENTS = 900 -- even, so that a {score, member} pair is never split

-- Call `act` with the values of the list, at most MAX_ARGUMENTS per call.
local function for_each_batch(list, act)
  for i = 1, #list, MAX_ARGUMENTS do act(unpack(list, i, math.min(i + MAX_ARGUMENTS - 1, #list))) end
end

-- Return the keys `prefix .. id`, those of the first prefix first.
local function keys_of(prefixes, ids)
  local keys = {}
  for p = 1, #prefixes do
    local prefix, offset = prefixes[p], (p - 1) * #ids
    for i = 1, #ids do keys[offset + i] = prefix .. ids[i] end
  end
  return keys
end

-- Return the values of the keys `prefix .. id`, in the order of the IDs; false for a missing key.
local function get_all(prefix, ids)
  local keys, values = keys_of({prefix}, ids), {}
  if #keys > 0 and #keys <= MAX_ARGUMENTS then return redis.call('MGET', unpack(keys)) end
  for_each_batch(keys, function(...)
    for _, value in ipairs(redis.call('MGET', ...)) do values[#values + 1] = value end
  end)
  return values
end

-- Return whether any of the keys `prefix .. id` exists, for any of the prefixes.
local function any_exists(prefixes, ids)
  local found = 0
  for_each_batch(keys_of(prefixes, ids), function(...) found = found + redis.call('EXISTS', ...) end)
  return found > 0
end

-- Redis 8.4 and Valkey 9.1 have MSETEX. An ACL rule that lists it is refused by older servers, so it is used only where
-- the server has it and the user may run it. This check leaves no error in the server's statistics, as a call would.
local MSETEX, MIN_MSETEX_KEYS = 'MSETEX', 4 -- For fewer keys the check takes longer than the SETs.
local may_msetex
local function can_msetex(key)
  if may_msetex == nil then
    local is_known, is_allowed = pcall(redis.acl_check_cmd, MSETEX, 1, key, '')
    may_msetex = is_known and is_allowed
  end
  return may_msetex
end

-- SET a flat list {key, value}*. `keep_ms` is the time until the keys expire; 0 sets nothing, -1 sets them for ever.
local function set_all(values, keep_ms)
  if keep_ms == 0 then return end
  if keep_ms < 0 then
    for i = 1, #values, 2 do redis.call('SET', values[i], values[i + 1]) end
    return
  end
  for i = 1, #values, MAX_ARGUMENTS do
    local last = math.min(i + MAX_ARGUMENTS - 1, #values)
    local count = (last - i + 1) / 2
    if count >= MIN_MSETEX_KEYS and can_msetex(values[i]) then
      local words = {unpack(values, i, last)}
      words[#words + 1] = 'PX'
      words[#words + 1] = keep_ms
      redis.call(MSETEX, count, unpack(words))
    else
      for j = i, last, 2 do redis.call('SET', values[j], values[j + 1], 'PX', keep_ms) end
    end
  end
end

-- ZADD a flat list {score, member}*. `flag` is optional, such as 'XX'.
local function add_scores(key, scores, flag)
  for i = 1, #scores, MAX_ARGUMENTS do
    local last = math.min(i + MAX_ARGUMENTS - 1, #scores)
    if flag then
      redis.call('ZADD', key, flag, unpack(scores, i, last))
    else
      redis.call('ZADD', key, unpack(scores, i, last))
    end
  end
end
