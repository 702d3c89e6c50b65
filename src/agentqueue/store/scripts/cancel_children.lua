--! include keys journal cancellation children
--[[
  Cancel children of a running job that have not ended.

  Input
    ARGV  1     in-progress value of the parent's delivery
          2     ID of the parent
          then  IDs of at most 100 children
  Keys touched
    arq:in-progress:, aq:journal:, aq:children: and aq:returns: of the parent; the keys of cancel.lua for each child
  Output
    1, or 0 if another delivery has begun
]]
local lease, id = ARGV[1], ARGV[2]
if not is_delivery(id, lease) then return 0 end
for i = 3, #ARGV do
  local state, child_queue = decode_child(redis.call('HGET', CHILDREN .. id, ARGV[i]) or '')
  if state == 'pending' then
    cancel_job(child_queue, ARGV[i], result_of_cancelled(ARGV[i], child_queue), RESULT_KEEP_MS)
  end
end
continue_cascades()
wake_parents()
return 1
