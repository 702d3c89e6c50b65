-- ARGV: 1 worker id, 2 since when it is to drain (ms), '' to take the mark back. It learns of it with its next renewal.
if ARGV[2] == '' then return redis.call('HDEL', KEYS[15], ARGV[1]) end
return redis.call('HSET', KEYS[15], ARGV[1], ARGV[2])
