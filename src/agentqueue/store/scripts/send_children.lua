--! include keys clock journal mailbox children enqueue replay
--[[
  Send children of a running job, each once. A child is known by the name of its call, so a call that is sent again, or a
  later delivery of the parent, sends nothing twice. After a replay of the parent, children that have failed run again,
  except if their failures are results of a gather that has its answer.

  Input
    KEYS  the keys of the parent's queue
    ARGV  1     in-progress value of the parent's delivery
          2     ID of the parent
          3     enqueueing of the parent: what distinguishes this use of its ID from others
          4     1 if failed children may run again, 0 if their gather has its answer
          then  {queue, call, fingerprint of target and payload, level, delay ms, record}* of at most 200 children; the
                record is '' if the journal says that the child was sent before
  Keys touched
    arq:in-progress:, aq:meta:, aq:children: and aq:returns: of the parent; the keys of enqueue.lua for each child's queue;
    the keys of replay.lua for children that are dead letters
  Output
    {} if another delivery has begun, otherwise {ID, status}*; a status is 'sent', 'known', 'missing' (it must be sent with
    its record) or 'differs' (another target or payload was sent under the name of its call, and nothing now)
]]
local lease, id, enqueueing, may_run_again = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
if not is_delivery(id, lease) then return {} end
note_journal(id)
local children = CHILDREN .. id
local known_enqueueing, salt, round = unpack(redis.call('HMGET', children, '#enqueueing', '#salt', '#round'))
if known_enqueueing ~= enqueueing then -- There are none yet, or an earlier job with this ID has left them behind.
  redis.call('UNLINK', children, RETURNS .. id)
  salt, round = now_text, '0'
  redis.call('HSET', children, '#enqueueing', enqueueing, '#salt', salt, '#round', round)
end

local reply, ids, entries = {}, {}, {}
for i = 5, #ARGV, 6 do
  ids[#ids + 1] = string.sub(redis.sha1hex(table.concat({id, enqueueing, salt, ARGV[i + 1]}, '\0')), 1, 32)
end
local known = #ids > 0 and redis.call('HMGET', children, unpack(ids)) or {}
local jobs, jobs_queue = {}, nil
local function enqueue_collected()
  if #jobs > 0 then enqueue_jobs(jobs_queue, jobs, true) end -- With the salt, the IDs are as good as random.
  jobs = {}
end

-- Let a child that has failed before the parent was replayed run again: as a replay, if it is a dead letter. Return its
-- status, 'sent' if it must be enqueued.
local function run_again(child, child_queue, has_record)
  local replayed = replay_job(child_queue, child, '')
  local is_live = replayed == 'replayed' or replayed == 'live'
  if not is_live and not has_record then return 'missing' end
  take_back(id, child, redis.call('HGET', children, child), round)
  if is_live then return 'known' end
  redis.call('DEL', RESULT .. child) -- It would make the ID known.
  return 'sent'
end

for i = 1, #ids do
  local child_queue, call, fingerprint, level, delay_ms, record = unpack(ARGV, 6 * i - 1, 6 * i + 4)
  local status = 'sent'
  if known[i] then
    local state, _, known_fingerprint, child_round = decode_child(known[i])
    if known_fingerprint ~= fingerprint then
      status = 'differs'
    elseif state == 'done' or child_round == round or not may_run_again or stands(id, known[i]) then
      status = 'known'
    else
      status = run_again(ids[i], child_queue, record ~= '')
    end
  elseif record == '' then
    status = 'missing'
  else
    entries[#entries + 1] = ids[i]
    entries[#entries + 1] = encode_child('pending', child_queue, fingerprint, round, call, '')
  end
  if status == 'sent' then
    if child_queue ~= jobs_queue then enqueue_collected() end
    jobs_queue = child_queue
    for _, part in ipairs({ids[i], level, delay_ms, record}) do jobs[#jobs + 1] = part end
  end
  reply[#reply + 1] = ids[i]
  reply[#reply + 1] = status
end
enqueue_collected()
if #entries > 0 then
  redis.call('HSET', children, unpack(entries))
  redis.call('HINCRBY', children, '#sent', #entries / 2)
end
return reply
