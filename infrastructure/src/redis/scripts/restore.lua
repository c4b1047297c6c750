-- Brings a shard back whose storage was lost or rolled back, as the ledger has recorded it before. ARGV[1..4] are not
-- looked at: what may be there is said below.
--
-- ARGV[5]: 'anew', 'drop' or 'keep'; ARGV[6]: the shard's name from now on, by which every program that saw it before is
-- refused; ARGV[7..9]: name, generation and sequence as it was found, empty where it was gone; ARGV[10]: number of shards;
-- ARGV[11..12]: generation and sequence from now on; ARGV[13]: pulses in the ledger; ARGV[14]: the time in milliseconds;
-- ARGV[15]: the layout of a bucket that is opened, see buckets.lua. Then the logs and their positions, in turn.
--
-- anew: nothing of the shard is kept, nothing is in it; compact buckets are left to drop.lua, and what is in them counts as
-- lost. drop: what is counted in it is in the ledger and goes; the identities stay. keep: all of it stays.
--
-- Answers 'ok', generation and sequence, also where it was done before, and 1 where drop.lua has something to do; 'changed'
-- where the shard is not as it was found; 'left' where the shard is gone and something else of it is there: see sweep.lua.
local of_layouts = layouts()
local NAMES, STEP = 4096, 3000
local how, name, found = ARGV[5], ARGV[6], ARGV[7]
local generation, sequence, counted = ARGV[11], ARGV[12], tonumber(ARGV[13])
local all = redis.call('HGETALL', META)
local meta = {}
for i = 1, #all, 2 do meta[all[i]] = all[i + 1] end
local listed = meta.accumulator and of_layouts.read(meta.buckets, meta.bucket_layouts or '') or {}
if meta.accumulator == name then return {'ok', meta.generation, meta.sequence, of_layouts.is_dropping(listed)} end
if (meta.accumulator or '') ~= found then return {'changed'} end
if meta.accumulator and (meta.generation ~= ARGV[8] or meta.sequence ~= ARGV[9]) then return {'changed'} end

local keys, buckets = {}, listed
local function gone(key) keys[#keys + 1] = PREFIX .. key end
if how ~= 'keep' and meta.accumulator then
  for number = tonumber(meta.deleted) + 1, tonumber(meta.generation) do
    local text = string.format('%.0f', number)
    local rows = meta.rows
    if number < tonumber(meta.generation) then rows = redis.call('HGET', PREFIX .. 'gen:' .. text, 'rows') or '0' end
    gone('agg:' .. text)
    gone('gen:' .. text)
    for list = 0, math.ceil(tonumber(rows) / NAMES) - 1 do gone('names:' .. text .. ':' .. list) end
  end
end
if how == 'anew' then
  buckets = {{number = 1, time = 0, layout = ARGV[15]}}
  for _, bucket in ipairs(listed) do
    if bucket.layout == '' then
      keys[#keys + 1] = bucket.key
    else
      -- Its parts have names of its own as long as no other bucket has its number.
      buckets[1].number = listed[1].number + 1
      bucket.layout = 'd'
      buckets[#buckets + 1] = bucket
    end
  end
  if not meta.accumulator then
    for _, key in ipairs({'ids:1', 'ids:1:0', 'logs', 'agg:' .. generation, 'gen:' .. generation,
      'names:' .. generation .. ':0'}) do
      if redis.call('EXISTS', PREFIX .. key) == 1 then return {'left'} end
    end
  end
end

-- Nothing was written up to here. What was received of logs and taken of them is added up anew.
gone('taken')
gone('accounts')
if how ~= 'keep' then gone('logs') end
for from = 1, #keys, STEP do redis.call('UNLINK', unpack(keys, from, math.min(from + STEP - 1, #keys))) end
if how ~= 'keep' then
  for from = 16, #ARGV, 2 * STEP do
    redis.call('HSET', PREFIX .. 'logs', unpack(ARGV, from, math.min(from + 2 * STEP - 1, #ARGV)))
  end
end
local set = {'accumulator', name, 'sequence', sequence}
local function put(field, value) set[#set + 1], set[#set + 2] = field, value end
if how == 'anew' then
  if meta.accumulator then redis.call('UNLINK', META) end
  put('shards', ARGV[10])
  put('duplicates', '0')
  put('anonymous', '0')
  put('ids_dropped', '0')
  put('ids_lost', counted)
  put(of_layouts.write(buckets))
  of_layouts.describe_opened(buckets[1], set, 0)
  for i = 2, #buckets do put('parts:' .. buckets[i].number, buckets[i].parts) end
  put('clock', '0')
  put('latest', ARGV[14])
else
  -- Those who wrote to it before write no more.
  for field in pairs(meta) do
    if string.sub(field, 1, 2) == 'w:' then redis.call('HDEL', META, field) end
  end
end
if how == 'drop' then
  put('ids_lost', (meta.ids_lost or 0) + math.max(0, counted - meta.counted))
end
if how ~= 'keep' then
  put('generation', generation)
  put('deleted', generation - 1)
  put('total', string.rep('\0', 16))
  put('rows', '0')
  put('counted', counted)
end
redis.call('HSET', META, unpack(set))
return {'ok', generation, sequence, of_layouts.is_dropping(buckets)}
