-- ARGV: 1 how far ahead a delayed job counts as due soon, ms (optional). A queue at one instant. Returns {now, {ready per level}, {delayed per level}, {active per level}, oldest ready score
-- or '', dead, done, paused value, {counters}, {this minute's}, {last minute's}, {workers}, next due or '', {drain marks}, due soon, running jobs whose
-- lease has run out}.
local ready, delayed, active = {}, {}, {}
local oldest, due
local due_soon, horizon, run_out = 0, tonumber(ARGV[1] or 0), 0
for level = 1, 4 do
  ready[level] = redis.call('ZCOUNT', KEYS[level], 0, '(' .. text(now + 1))
  delayed[level] = redis.call('ZCOUNT', KEYS[level], text(now + 1), '+inf')
  if horizon > 0 then due_soon = due_soon + redis.call('ZCOUNT', KEYS[level], text(now + 1), text(now + horizon)) end
  active[level] = redis.call('ZCOUNT', KEYS[level], '-inf', '(0')
  if active[level] > 0 then run_out = run_out + redis.call('ZCOUNT', KEYS[level], '(' .. text(-now), '(0') end
  local first = redis.call('ZRANGEBYSCORE', KEYS[level], OLDEST, '(' .. text(now + 1), 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if first and (not oldest or tonumber(first) < tonumber(oldest)) then oldest = first end
  local later = redis.call('ZRANGEBYSCORE', KEYS[level], text(now + 1), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if later and (not due or tonumber(later) < tonumber(due)) then due = later end
end
local minute = math.floor(now / 60000)
return {
  now, ready, delayed, active, oldest or '', redis.call('ZCARD', KEYS[5]), redis.call('ZCARD', KEYS[6]),
  redis.call('GET', KEYS[7]) or '', redis.call('HGETALL', KEYS[10]),
  redis.call('HGETALL', KEYS[10] .. ':' .. text(minute)), redis.call('HGETALL', KEYS[10] .. ':' .. text(minute - 1)),
  redis.call('HGETALL', KEYS[11]), due or '', redis.call('HGETALL', KEYS[15]), due_soon, run_out,
}
