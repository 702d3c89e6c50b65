-- ARGV: fresh (1|0), then {id, level, delay ms, record}*. Returns the positions of the ids that were known already.
local jobs = {}
for i = 2, #ARGV do jobs[i - 1] = ARGV[i] end
return put(QUEUE, jobs, ARGV[1] == '1')
