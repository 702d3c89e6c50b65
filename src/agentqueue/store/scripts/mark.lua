-- ARGV: 1 worker id, 2 since when it is to drain (ms), '' to take the mark back, 3 for how long (ms) all marks of the
-- queue hold if nobody keeps them, '' for ever. The worker learns of it with its next renewal.
if ARGV[2] == '' then return redis.call('HDEL', KEYS[15], ARGV[1]) end
redis.call('HSET', KEYS[15], ARGV[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('PEXPIRE', KEYS[15], ARGV[3]) end
