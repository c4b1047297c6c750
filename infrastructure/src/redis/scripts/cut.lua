-- All figures of a shard, of one moment; changes nothing. ARGV[1..4] are not looked at: any shard is answered.
--
-- Answers 'ok', what meta says of the shard (as create.lua), rows of the active generation as they were recorded and as
-- there are, identities that are known, that were dropped, and that were lost with storage; how many compact buckets
-- there are, and each with its number, its parts, and its identities as they were recorded (recount.lua counts them); then
-- for each sealed generation its number, its total, and its rows in the same way. 'missing' where there is no such shard;
-- 'many' and how many generations are sealed where these are too many for one step.
local of_layouts = layouts()
local SEALED_MAX = 10000
local meta = redis.call('HMGET', META, 'accumulator', 'shards', 'generation', 'sequence', 'deleted', 'total', 'counted',
  'duplicates', 'anonymous', 'rows', 'ids_dropped', 'buckets', 'ids_lost', 'bucket_layouts')
if not meta[1] then return {'missing'} end
local generation, deleted = tonumber(meta[3]), tonumber(meta[5])
if generation - deleted > SEALED_MAX then return {'many', generation - deleted - 1} end

-- One field of the hash is no row: see apply.lua.
local function stored(number)
  local fields = redis.call('HLEN', PREFIX .. string.format('agg:%.0f', number))
  return fields > 0 and fields - 1 or 0
end

local ids, compact = 0, {}
for _, bucket in ipairs(of_layouts.read(meta[12], meta[14])) do
  if bucket.layout == '' then
    ids = ids + redis.call('HLEN', bucket.key)
  elseif bucket.ids then
    ids = ids + bucket.ids
    compact[#compact + 1] = bucket
  end
end
local reply = {'ok'}
for i = 1, 10 do reply[#reply + 1] = meta[i] end
reply[#reply + 1] = stored(generation)
reply[#reply + 1] = ids
reply[#reply + 1] = meta[11]
reply[#reply + 1] = meta[13] or '0'
reply[#reply + 1] = #compact
for _, bucket in ipairs(compact) do
  reply[#reply + 1] = bucket.number
  reply[#reply + 1] = bucket.parts
  reply[#reply + 1] = bucket.ids
end
for number = deleted + 1, generation - 1 do
  local sealed = redis.call('HMGET', PREFIX .. string.format('gen:%.0f', number), 'total', 'rows')
  reply[#reply + 1] = number
  reply[#reply + 1] = sealed[1] or ''
  reply[#reply + 1] = sealed[2] or '0'
  reply[#reply + 1] = stored(number)
end
return reply
