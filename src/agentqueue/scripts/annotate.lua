-- ARGV: owner, id, {field, value}*. Notes something of a running job (progress, checkpoint), if the owner still has it.
-- Returns 1, or 0 if it has not.
if not is_held_by(redis.call('GET', HELD .. ARGV[2]), ARGV[1]) then return 0 end
redis.call('HSET', META .. ARGV[2], unpack(ARGV, 3))
return 1
