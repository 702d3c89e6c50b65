-- ARGV: {counter, by}*. Adds to the queue's counters since the beginning.
for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[10], ARGV[i], ARGV[i + 1]) end
