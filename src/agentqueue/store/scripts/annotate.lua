-- ARGV: owner, id, {field, value}*. Notes something of a running job (progress, checkpoint), if the owner still has it.
-- Returns 1, or 0 if it has not.
if not is_held_by(mget(HELD, {ARGV[2]})[1], ARGV[1]) then return 0 end
mend('HSET', META .. ARGV[2], unpack(ARGV, 3))
return 1
