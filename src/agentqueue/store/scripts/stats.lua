--! include keys clock suspension
--[[
  Read the state of the queue at one instant.

  Input
    ARGV  how far ahead a delayed job counts as due soon, ms (optional)
  Keys touched
    the levels, {queue}:dead, :done, :paused, :stats and its two last minutes, :workers, :drain, :suspended:*
  Output
    {now ms, {ready jobs per level}, {delayed jobs per level}, {running jobs per level},
     score of the oldest ready job or '', dead letters, completed jobs in the history, note of the pause or '',
     {counters}, {counters of this minute}, {counters of the last minute}, {heartbeats}, score of the next delayed job or
     '', {drain requests}, delayed jobs that are due soon, running jobs whose lease has expired, {kind, suspended jobs}*}.
    Suspended jobs are delayed jobs too, and those that a time will wake are due at that time.
]]
local due_soon_ms = tonumber(ARGV[1] or 0)
local ready, delayed, running = {}, {}, {}
local oldest, next_due
local due_soon, expired = 0, 0
local after_now, until_now = format_number(now + 1), '(' .. format_number(now + 1)
local until_never = '(' .. format_number(NEVER)
for level = 1, 4 do
  local key = level_keys[level]
  ready[level] = redis.call('ZCOUNT', key, 0, until_now)
  delayed[level] = redis.call('ZCOUNT', key, after_now, '+inf')
  running[level] = redis.call('ZCOUNT', key, '-inf', '(0')
  if due_soon_ms > 0 then
    due_soon = due_soon + redis.call('ZCOUNT', key, after_now, format_number(now + due_soon_ms))
  end
  if running[level] > 0 then
    expired = expired + redis.call('ZCOUNT', key, '(' .. format_number(-now), '(0')
  end
  local first = redis.call('ZRANGEBYSCORE', key, MIN_TIMESTAMP, until_now, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if first and (not oldest or tonumber(first) < tonumber(oldest)) then oldest = first end
  local later = redis.call('ZRANGEBYSCORE', key, after_now, until_never, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if later and (not next_due or tonumber(later) < tonumber(next_due)) then next_due = later end
end
local suspended = {}
for _, kind in ipairs(SUSPENSION_KINDS) do
  suspended[#suspended + 1] = kind
  suspended[#suspended + 1] = redis.call('ZCOUNT', suspended_key(queue, kind), after_now, '+inf')
end
local minute = math.floor(now / 60000)
return {
  now, ready, delayed, running, oldest or '', redis.call('ZCARD', dead_key), redis.call('ZCARD', done_key),
  redis.call('GET', paused_key) or '', redis.call('HGETALL', stats_key),
  redis.call('HGETALL', stats_key .. ':' .. format_number(minute)),
  redis.call('HGETALL', stats_key .. ':' .. format_number(minute - 1)),
  redis.call('HGETALL', workers_key), next_due or '', redis.call('HGETALL', drain_key), due_soon, expired, suspended,
}
