-- Marks a message as taken alone. ARGV[1]: its mark, "TIMES RETURNS", a key of the same shard as KEYS[1]. ARGV[2]: how
-- often the message has come back. ARGV[3]: for how many seconds the mark is kept.
--
-- Answers how often it was taken alone before. One that has not come back since is not taken once more: it is the same
-- call again, or a message that looks the same.
local mark = redis.call('GET', ARGV[1])
local times, returns = 0, -1
if mark then
  local found_times, found_returns = string.match(mark, '^(%d+) (%d+)$')
  times, returns = tonumber(found_times), tonumber(found_returns)
end
if tonumber(ARGV[2]) <= returns then return {string.format('%.0f', times - 1)} end
redis.call('SET', ARGV[1], string.format('%.0f', times + 1) .. ' ' .. ARGV[2], 'EX', ARGV[3])
return {string.format('%.0f', times)}
