--! include keys wrong_types errors journal streams
--[[
  Add events to the stream of a running job, if its delivery goes on. A call that is sent again adds nothing twice.

  Input
    ARGV  1     in-progress value of the delivery
          2     ID of the job
          3     1 if the job had no stream when it was claimed, and this is the first call of the delivery
          4     '' to add to the text; else how many of its events stand, where this is the start of a batch
          5     ID of the first batch that is kept, or '' to keep all
          then  {ID, step or '', JSON list of events}* of the batches
  Keys touched
    arq:in-progress:, aq:meta: and aq:stream: of the job
  Output
    1, or 0 if another delivery has begun
]]
local MAX_DROPPED = 500 -- batches that are looked at per command
local lease, id, is_first, keep, oldest = unpack(ARGV, 1, 5)
if not is_delivery(id, lease) then return 0 end
local stream = STREAM .. id
if is_first == '1' and call_or_reset('HSET', META .. id, 'stream', 1) == 1 then
  redis.call('UNLINK', stream) -- an earlier job with the same ID has left it
end

-- Delete the batches from that position on which earlier runs have added.
local function drop_from(position, run)
  while true do
    local found, dropped = call_or_reset('XREVRANGE', stream, '(' .. run .. '-0', '-', 'COUNT', MAX_DROPPED), {}
    for i = 1, #found do
      if tonumber(string.match(found[i][1], '-(%d+)$')) >= position then dropped[#dropped + 1] = found[i][1] end
    end
    if #dropped > 0 then redis.call('XDEL', stream, unpack(dropped)) end
    if #dropped < MAX_DROPPED then return end
  end
end

if keep ~= '' then
  local run = ARGV[6] and string.match(ARGV[6], '^(%d+)-') or '9999999999999'
  drop_from(tonumber(keep), run)
end
for i = 6, #ARGV, 3 do
  local words = {ARGV[i], 'v', ARGV[i + 2]}
  if ARGV[i + 1] ~= '' then
    words[4], words[5] = 's', ARGV[i + 1]
  end
  local ok, err = pcall(call_or_reset, 'XADD', stream, unpack(words))
  if not ok and not string.find(error_text(err), 'equal or smaller', 1, true) then error(err, 0) end
end
if oldest ~= '' then redis.call('XTRIM', stream, 'MINID', oldest) end
redis.call('PEXPIRE', stream, STREAM_KEEP_MS)
return 1
