-- The server's time.
local DAY_MS = 86400000
local MIN_TIMESTAMP = 1e12 -- Smaller scores are not times: arq's abort() writes 1.
local NEVER = 253370764800000 -- The due time of a job that an event wakes and no time: the year 9999, as a time like others.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- milliseconds since the epoch

-- Format a number with all its digits. Lua's own `tostring` keeps 14, and scores have more.
local function format_number(number) return string.format('%.17g', number) end

local now_text = format_number(now)
