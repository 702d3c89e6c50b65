--! include keys clock suspension children
-- A suspended job must always have something that wakes it. Its children return when they end; those that end elsewhere
-- (in a plain arq worker, in an older version, or because another program has deleted their record) are found here.
local PARENTS_PER_SWEEP = 10
local CHILDREN_PER_PARENT = 100 -- about; the next call goes on behind them
local LOST = '{"e":{"state":"lost","type":"ChildLost","message":"the server knows neither the job nor a result of it"}}'

-- Return what a child without a record returns: its stored result, if another program has ended it.
local function return_of_ended(child)
  local result = redis.pcall('GET', RESULT .. child)
  local is_readable, record = pcall(cjson.decode, type(result) == 'string' and result or '')
  if not is_readable or type(record) ~= 'table' then return LOST end
  if record.s ~= true then
    return '{"e":{"state":"dead","type":"ChildFailed","message":"it ended in a program that says no more; see its result"}}'
  end
  return '{"v":null,"result":' .. result .. '}'
end

-- Return for the children of a suspended job that have ended without a return. Wake the job if its list of children or
-- its journal is gone: only its next delivery can ask for them again.
local function return_lost_children(parent)
  local children = CHILDREN .. parent
  if redis.call('EXISTS', children, JOURNAL .. parent) < 2 then
    parents_to_wake[parent] = queue
    return
  end
  local cursor = redis.call('HGET', children, '#cursor') or '0'
  local next_cursor, page = unpack(redis.call('HSCAN', children, cursor, 'COUNT', CHILDREN_PER_PARENT))
  for i = 1, #page, 2 do
    local child, state = page[i], decode_child(page[i + 1])
    if state == 'pending' and redis.call('EXISTS', JOB .. child, IN_PROGRESS .. child) == 0 then
      return_to_parent(parent, queue, child, return_of_ended(child))
    end
  end
  if next_cursor ~= cursor then redis.call('HSET', children, '#cursor', next_cursor) end
end

-- Look at some of the jobs that are suspended for children, others with each call. wake_parents() wakes those that can go on.
local function sweep_parents()
  for _, kind in ipairs({'children', 'several'}) do
    local key = suspended_key(queue, kind)
    local pages = math.max(1, math.ceil(redis.call('ZCARD', key) / PARENTS_PER_SWEEP))
    local first = math.floor(now / 1949) % pages * PARENTS_PER_SWEEP
    for _, parent in ipairs(redis.call('ZRANGE', key, first, first + PARENTS_PER_SWEEP - 1)) do
      if kind == 'children' or redis.call('EXISTS', CHILDREN .. parent) == 1 then return_lost_children(parent) end
    end
  end
end
