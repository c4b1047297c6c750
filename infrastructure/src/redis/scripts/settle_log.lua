-- Takes a step of the account of a log. KEYS[1]: the accounts, each "NEXT RECEIVED REFUSED". ARGV[1]: the log; ARGV[2..3]:
-- where the account must stand, and where it stands then; ARGV[4..5]: how many more were received, and refused.
--
-- Answers where it stands; nothing where there is no account. Counts stay below 2^53.
local account = redis.call('HGET', KEYS[1], ARGV[1])
if not account then return {} end
local next, received, refused = string.match(account, '^(%d+) (%d+) (%d+)$')
if next ~= ARGV[2] then return {next} end
account = string.format('%s %.0f %.0f', ARGV[3], received + ARGV[4], refused + ARGV[5])
redis.call('HSET', KEYS[1], ARGV[1], account)
return {ARGV[3]}
