-- Counts the pulses of a batch whose identity is not known, and remembers their identities.
--
-- ARGV[5..13]: writer, number of the batch, pulses in it, identities, pulses without identity, units and nanos of the
-- whole batch, details, fingerprints. Then the digests of the identities, then five arguments for each row: part, usage
-- key, units, nanos, pulses. Details are 29 digits for each identity: its row (from 1), and the units and nanos of its
-- pulse; fingerprints are six bytes each. Both are taken apart only where they are needed.
--
-- Answers 'ok', generation, sequence, and index and stored fingerprint of each identity that was known; or 'full' and
-- the generation, where the totals would come too near to the end of what stays exact.
local writer = 'w:' .. ARGV[5]
local number, pulses, ids, anonymous = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local meta = redis.call('HMGET', META, 'accumulator', 'shards', 'generation', 'sequence', 'buckets', 'units', 'nanos',
  'count', 'counted', 'duplicates', 'anonymous', writer)
local refused = refusal(meta[1], meta[2], meta[3], meta[4])
if refused then return refused end
local generation, sequence = meta[3], tonumber(meta[4])

-- A repetition of the writer's latest batch changes nothing. An earlier one can only be a command that was long on its
-- way: nobody waits for its answer any more.
local repeated = false
if meta[12] then
  local latest = tonumber(string.match(meta[12], '^(%d+)@'))
  if number < latest then return {'stale', string.format('%.0f', latest)} end
  repeated = number == latest
end

local FIRST_ID = 14
local FIRST_ROW = FIRST_ID + ids
local newest
local known, known_count = {}, 0
for bucket in string.gmatch(meta[5], '(%d+)@') do
  local key = PREFIX .. 'ids:' .. bucket
  newest = newest or key
  if ids > 0 then
    local found = redis.call('HMGET', key, unpack(ARGV, FIRST_ID, FIRST_ROW - 1))
    for i = 1, ids do
      if found[i] and not known[i] then
        known[i] = found[i]
        known_count = known_count + 1
      end
    end
  end
end

local reply = {'ok', generation, sequence}
if known_count > 0 then
  for i = 1, ids do
    if known[i] then
      reply[#reply + 1] = i
      reply[#reply + 1] = known[i]
    end
  end
end
if repeated then return reply end

local counted = ids - known_count + anonymous
if counted > 0 and (tonumber(meta[6]) + tonumber(ARGV[10]) > 9.0e18
    or tonumber(meta[7]) + tonumber(ARGV[11]) > 9.0e18) then
  return {'full', generation}
end
local counts = {
  'sequence', sequence + 1, 'count', meta[8] + counted, 'counted', meta[9] + counted,
  'duplicates', meta[10] + pulses - counted, 'anonymous', meta[11] + anonymous,
  writer, ARGV[6] .. '@' .. generation,
}

-- Nothing was written up to here. Nothing below can fail on storage that only these scripts have written to.
if ids > known_count then
  -- unpack takes less than 8,000 values.
  for from = 1, ids, 2000 do
    local fields, n = {}, 0
    for i = from, math.min(from + 1999, ids) do
      if not known[i] then
        fields[n + 1] = ARGV[FIRST_ID + i - 1]
        fields[n + 2] = string.sub(ARGV[13], i * 6 - 5, i * 6)
        n = n + 2
      end
    end
    if n > 0 then redis.call('HSET', newest, unpack(fields)) end
  end
end

if counted > 0 then
  local rows = PREFIX .. 'agg:' .. generation .. ':'
  -- The sums of the batch hold what is known; it is taken back out, amount by amount, where anything else counts.
  local known_in_row = {}
  for i in pairs(known) do
    local row = tonumber(string.sub(ARGV[12], i * 29 - 28, i * 29 - 25))
    known_in_row[row] = (known_in_row[row] or 0) + 1
  end
  local row = 0
  for a = FIRST_ROW, #ARGV, 5 do
    row = row + 1
    local count = ARGV[a + 4]
    if known_in_row[row] then count = count - known_in_row[row] end
    if count ~= 0 then
      local part, key = rows .. ARGV[a], ARGV[a + 1]
      redis.call('HINCRBY', part, key .. 'u', ARGV[a + 2])
      if ARGV[a + 3] ~= '0' then redis.call('HINCRBY', part, key .. 'n', ARGV[a + 3]) end
      redis.call('HINCRBY', part, key .. 'c', count)
    end
  end
  redis.call('HINCRBY', META, 'units', ARGV[10])
  if ARGV[11] ~= '0' then redis.call('HINCRBY', META, 'nanos', ARGV[11]) end
  for i in pairs(known) do
    local at = i * 29 - 28
    local row = tonumber(string.sub(ARGV[12], at, at + 3))
    local a = FIRST_ROW + row * 5 - 5
    local units = string.match(string.sub(ARGV[12], at + 4, at + 19), '^0*(%d+)$')
    local nanos = string.match(string.sub(ARGV[12], at + 20, at + 28), '^0*(%d+)$')
    local part, key = rows .. ARGV[a], ARGV[a + 1]
    local counts_at_all = known_in_row[row] < tonumber(ARGV[a + 4])
    -- HINCRBY does not take '-0' for a number.
    if units ~= '0' then
      redis.call('HINCRBY', META, 'units', '-' .. units)
      if counts_at_all then redis.call('HINCRBY', part, key .. 'u', '-' .. units) end
    end
    if nanos ~= '0' then
      redis.call('HINCRBY', META, 'nanos', '-' .. nanos)
      if counts_at_all then redis.call('HINCRBY', part, key .. 'n', '-' .. nanos) end
    end
  end
end
redis.call('HSET', META, unpack(counts))
reply[3] = sequence + 1
return reply
