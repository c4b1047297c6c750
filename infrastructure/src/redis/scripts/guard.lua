-- What every step checks before it writes anything: the shard is there, is ours, and is where the caller last saw it
-- or further. KEYS[1] is the shard's meta. ARGV[1..4]: accumulator, number of shards (both empty where any will do),
-- generation and sequence that the caller has seen.
--
-- Lua has doubles only. Counts and numbers of all kinds stay below 2^53. Amounts do not: they are computed with in parts
-- (see apply.lua) or not at all.
local META = KEYS[1]
local PREFIX = string.sub(META, 1, -5)

local function refusal(accumulator, shards, generation, sequence)
  if not accumulator then
    return {'missing'}
  elseif ARGV[1] ~= '' and ARGV[1] ~= accumulator then
    return {'foreign', accumulator}
  elseif ARGV[2] ~= '' and ARGV[2] ~= shards then
    return {'shards', shards}
  elseif tonumber(generation) < tonumber(ARGV[3]) or tonumber(sequence) < tonumber(ARGV[4]) then
    return {'behind', generation, sequence}
  end
end
