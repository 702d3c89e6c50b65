-- Return the text of an error that `pcall` has caught. Redis raises tables, Lua raises strings.
local function error_text(err)
  return type(err) == 'table' and (err.err or err[1]) or tostring(err)
end
