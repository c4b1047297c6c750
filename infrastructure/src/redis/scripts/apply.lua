-- Counts the pulses of a batch whose identity is not known, and remembers their identities.
--
-- ARGV[5..13]: writer, number of the batch, pulses in it, identities, pulses without identity, the sum of the batch, the
-- sums of its rows, one detail for each identity, one fingerprint (6 bytes) for each identity; ARGV[14]: stretches of
-- logs. Then the digests of the identities, then the usage keys of the rows, then for each stretch the log, where the
-- caller believes it to stand, where it stands after this batch, and how many pulses of the batch are between the two.
--
-- Number 0 counts nothing and only asks which identities are known.
--
-- A sum is 16 bytes, as it is stored: units (8 bytes), nanos below a unit (4), pulses (4), big-endian. A detail is 14
-- bytes: row from 0 (2), units (8), nanos (4) of the pulse; it is only read for an identity that is known.
--
-- Answers 'ok', generation, sequence, and index and stored fingerprint of each identity that was known; or 'full' and
-- the generation, where the sums would come too near to the end of what they can hold; or 'moved' and where each of the
-- logs stands, where one is not where the caller believes; or 'logs' and how many there are, where these are too many.
local NUMBER, PULSES, IDS, ANONYMOUS, TOTAL, SUMS, DETAILS, FINGERPRINTS = 6, 7, 8, 9, 10, 11, 12, 13
local STRETCHES, FIRST_ID = 14, 15
-- The high half of the units stays below 2^31, the number of pulses below 2^32.
local HIGH_END, PULSES_END = 2147483000, 4290000000
-- How many names of rows a list holds, and how many pairs one HSET takes: unpack takes less than 8,000 values.
local NAMES, PAIRS = 4096, 3000
-- How many logs a shard remembers: all of them are copied at each seal.
local LOGS = 20000

local writer = 'w:' .. ARGV[5]
local number, ids, anonymous = tonumber(ARGV[NUMBER]), tonumber(ARGV[IDS]), tonumber(ARGV[ANONYMOUS])
local stretches = tonumber(ARGV[STRETCHES])
local meta = redis.call('HMGET', META, 'accumulator', 'shards', 'generation', 'sequence', 'buckets', 'total', 'rows',
  'counted', 'duplicates', 'anonymous', writer)
local refused = refusal(meta[1], meta[2], meta[3], meta[4])
if refused then return refused end
local generation, sequence = meta[3], tonumber(meta[4])

-- A repetition of the writer's latest batch changes nothing. An earlier one can only be a command that was long on its
-- way: nobody waits for its answer any more.
local repeated = number == 0
if meta[11] and number > 0 then
  local latest = tonumber(string.match(meta[11], '^(%d+)@'))
  if number < latest then return {'stale', string.format('%.0f', latest)} end
  repeated = number == latest
end

local FIRST_ROW = FIRST_ID + ids
local LAST_ROW = #ARGV - 4 * stretches

-- A log that is not where the caller believes was counted on by another program: the caller takes out what that has
-- counted and asks again. Nothing is counted twice, because nothing is counted but from where the log stands.
local moves = {}
if stretches > 0 and not repeated then
  local logs = {}
  for i = 1, stretches do logs[i] = ARGV[LAST_ROW + 4 * i - 3] end
  local stands, moved, new = redis.call('HMGET', PREFIX .. 'logs', unpack(logs)), false, 0
  for i = 1, stretches do
    if not stands[i] then new, stands[i] = new + 1, '0:0' end
    local believed, after = ARGV[LAST_ROW + 4 * i - 2], ARGV[LAST_ROW + 4 * i - 1]
    moved = moved or stands[i] ~= believed
    if after ~= believed then
      moves[#moves + 1] = logs[i]
      moves[#moves + 1] = after
    end
  end
  if moved then return {'moved', unpack(stands)} end
  if new > 0 then
    local there = redis.call('HLEN', PREFIX .. 'logs')
    if there + new > LOGS then return {'logs', there} end
  end
end

local newest
local known, known_count = {}, 0
for bucket in string.gmatch(meta[5] or '', '(%d+)@') do
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
-- Not all buckets are fast: see buckets.lua. `open` is the one that gets what is new.
local open, hashes, of_layouts
if not meta[5] then
  of_layouts = layouts()
  local buckets = of_layouts.read(false, redis.call('HGET', META, 'bucket_layouts'))
  open, newest, hashes = buckets[1], buckets[1].key, of_layouts.hashes_of(FIRST_ID, FIRST_ROW - 1)
  for _, bucket in ipairs(buckets) do
    if ids > 0 then known_count = known_count + of_layouts.look_in(bucket, FIRST_ID, FIRST_ROW - 1, hashes, known) end
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
local rows, total = {}, meta[6]
local names, old_names = {}, tonumber(meta[7])
if counted > 0 then
  -- Units are added up as two halves of 32 bits each, nanos and pulses as they are: whatever a batch adds or takes back,
  -- no part comes near 2^53, so every step is exact, and the carries are put right at the end.
  local read, write, floor = struct.unpack, struct.pack, math.floor
  local function sum(high, low, nanos, pulses)
    local carry = floor(nanos / 1000000000)
    nanos, low = nanos - carry * 1000000000, low + carry
    carry = floor(low / 4294967296)
    return write('>I4I4I4I4', high + carry, low - carry * 4294967296, nanos, pulses)
  end

  -- The sums of the batch hold its known identities as well. They are taken back.
  local taken, all_high, all_low, all_nanos = {}, 0, 0, 0
  for i in pairs(known) do
    local row, high, low, nanos = read('>I2I4I4I4', ARGV[DETAILS], i * 14 - 13)
    local back = taken[row] or {0, 0, 0, 0}
    taken[row] = {back[1] + high, back[2] + low, back[3] + nanos, back[4] + 1}
    all_high, all_low, all_nanos = all_high + high, all_low + low, all_nanos + nanos
  end

  local high, low, nanos, pulses = read('>I4I4I4I4', meta[6])
  local more_high, more_low, more_nanos, more_pulses = read('>I4I4I4I4', ARGV[TOTAL])
  if high + more_high > HIGH_END or pulses + more_pulses > PULSES_END then return {'full', generation} end
  total = sum(high + more_high - all_high, low + more_low - all_low, nanos + more_nanos - all_nanos, pulses + counted)

  local stored = redis.call('HMGET', PREFIX .. 'agg:' .. generation, unpack(ARGV, FIRST_ROW, LAST_ROW))
  local sums = ARGV[SUMS]
  local n = 0
  for row = 0, LAST_ROW - FIRST_ROW do
    local high, low, nanos, pulses = read('>I4I4I4I4', sums, row * 16 + 1)
    local back = taken[row]
    if back then
      high, low, nanos, pulses = high - back[1], low - back[2], nanos - back[3], pulses - back[4]
    end
    -- A row whose pulses are all known does not appear.
    if pulses > 0 then
      local key, old = ARGV[FIRST_ROW + row], stored[row + 1]
      if old then
        local old_high, old_low, old_nanos, old_pulses = read('>I4I4I4I4', old)
        high, low, nanos, pulses = high + old_high, low + old_low, nanos + old_nanos, pulses + old_pulses
      else
        names[#names + 1] = key
      end
      rows[n + 1], rows[n + 2] = key, sum(high, low, nanos, pulses)
      n = n + 2
    end
  end
end
local counts = {
  'sequence', sequence + 1, 'total', total, 'rows', old_names + #names, 'counted', meta[8] + counted,
  'duplicates', meta[9] + ARGV[PULSES] - counted, 'anonymous', meta[10] + anonymous,
  writer, ARGV[NUMBER] .. '@' .. generation,
}

-- Nothing was written up to here. Nothing below can fail on storage that only these scripts have written to.
if ids > known_count and open and open.layout == 'c' then
  of_layouts.remember(open, FIRST_ID, FIRST_ROW - 1, hashes, known, ids - known_count, ARGV[FINGERPRINTS], counts)
elseif ids > known_count then
  local fingerprints = ARGV[FINGERPRINTS]
  for from = 1, ids, PAIRS do
    local fields, n = {}, 0
    for i = from, math.min(from + PAIRS - 1, ids) do
      if not known[i] then
        fields[n + 1], fields[n + 2] = ARGV[FIRST_ID + i - 1], string.sub(fingerprints, i * 6 - 5, i * 6)
        n = n + 2
      end
    end
    if n > 0 then redis.call('HSET', newest, unpack(fields)) end
  end
end
for from = 1, #rows, 2 * PAIRS do
  redis.call('HSET', PREFIX .. 'agg:' .. generation, unpack(rows, from, math.min(from + 2 * PAIRS - 1, #rows)))
end
-- A hash of short values is searched from its front until it has grown; one value of more than 64 bytes makes it a table
-- at once. It stands under a name that no list has.
if old_names == 0 and #names > 0 then
  redis.call('HSET', PREFIX .. 'agg:' .. generation, '', string.rep('-', 65))
end
local from = 1
while from <= #names do
  local place = old_names + from - 1
  local to = math.min(#names, from + NAMES - place % NAMES - 1)
  redis.call('RPUSH', PREFIX .. 'names:' .. generation .. ':' .. math.floor(place / NAMES), unpack(names, from, to))
  from = to + 1
end
for from = 1, #moves, 2 * PAIRS do
  redis.call('HSET', PREFIX .. 'logs', unpack(moves, from, math.min(from + 2 * PAIRS - 1, #moves)))
end
for i = 1, stretches do
  local log, taken = ARGV[LAST_ROW + 4 * i - 3], ARGV[LAST_ROW + 4 * i]
  if taken ~= '0' then redis.call('HINCRBY', PREFIX .. 'taken', log, taken) end
end
redis.call('HSET', META, unpack(counts))
reply[3] = sequence + 1
return reply
