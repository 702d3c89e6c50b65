-- ARGV: ids of dead letters to forget, their results included: what is left of one would make a job that is enqueued
-- again under its id count as known. Returns how many there were.
local gone = 0
for i = 1, #ARGV do
  if redis.call('HGET', DEAD .. ARGV[i], 'queue') == QUEUE then
    drop_dead(ARGV[i])
    redis.call('DEL', RESULT .. ARGV[i])
    gone = gone + 1
  end
end
return gone
