--! include clock
-- Return whether a record that expires at `expires_at` has arq's default expiry, 24 hours after the job's score, and not
-- one that the user has chosen. Allows 10 minutes for delays.
local function is_arq_default_expiry(expires_at, score)
  return math.abs(expires_at - (tonumber(score) + DAY_MS)) <= 600000
end
