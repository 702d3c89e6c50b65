-- ARGV: ids of dead letters to forget. Returns how many there were.
local gone = 0
for i = 1, #ARGV do
  if redis.call('HGET', DEAD .. ARGV[i], 'queue') == QUEUE then
    drop_dead(ARGV[i])
    gone = gone + 1
  end
end
return gone
