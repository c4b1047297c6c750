-- Makes a shard unless it is there. ARGV[5]: the time in milliseconds, from which the shard's clock starts. ARGV[6..7]:
-- accumulator and number of shards of the new shard; ARGV[8]: the layout of its first bucket, see buckets.lua; ARGV[1..2]
-- are empty, so that any shard is answered.
-- Answers 'ok' and where the shard stands.
local of_layouts = layouts()
local FIELDS = {'accumulator', 'shards', 'generation', 'sequence', 'deleted', 'total', 'counted', 'duplicates',
  'anonymous'}
local meta = redis.call('HMGET', META, unpack(FIELDS))
if not meta[1] then
  -- What this program has seen before cannot be made anew.
  if tonumber(ARGV[4]) > 0 then return {'missing'} end
  local first = {number = 1, time = 0, layout = ARGV[8]}
  local list, buckets = of_layouts.write({first})
  local set = {'accumulator', ARGV[6], 'shards', ARGV[7], 'generation', '1', 'sequence', '1',
    'deleted', '0', 'total', string.rep('\0', 16), 'rows', '0', 'counted', '0', 'duplicates', '0', 'anonymous', '0',
    'ids_dropped', '0', list, buckets, 'clock', '0', 'latest', ARGV[5]}
  of_layouts.describe_opened(first, set, 0)
  redis.call('HSET', META, unpack(set))
  meta = redis.call('HMGET', META, unpack(FIELDS))
end
local refused = refusal(meta[1], meta[2], meta[3], meta[4])
if refused then return refused end
return {'ok', unpack(meta)}
