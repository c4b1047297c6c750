-- Takes a step of the account of a log. ARGV[1]: the accounts, each "NEXT RECEIVED REFUSED", a key of the same shard as
-- KEYS[1]; ARGV[2]: the log; ARGV[3..4]: where the account must stand, and where it stands then; ARGV[5..6]: how many more
-- were received, and refused.
--
-- Answers where it stands; nothing where there is no account. Counts stay below 2^53.
local account = redis.call('HGET', ARGV[1], ARGV[2])
if not account then return {} end
local next, received, refused = string.match(account, '^(%d+) (%d+) (%d+)$')
if next ~= ARGV[3] then return {next} end
account = string.format('%s %.0f %.0f', ARGV[4], received + ARGV[5], refused + ARGV[6])
redis.call('HSET', ARGV[1], ARGV[2], account)
return {ARGV[4]}
