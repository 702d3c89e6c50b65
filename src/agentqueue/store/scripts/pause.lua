-- ARGV: '' to resume, else the note to keep. Returns 1 if that changed anything.
if ARGV[1] ~= '' then return redis.call('SET', KEYS[7], ARGV[1], 'NX') and 1 or 0 end
local was = redis.call('DEL', KEYS[7])
wake(QUEUE, 10)
return was
