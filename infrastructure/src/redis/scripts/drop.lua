-- Takes a step in the dropping of compact buckets: removes up to ARGV[5] parts of one, the last ones, and counts their
-- identities as dropped. Meta notes what is left by the same step, so whoever comes next goes on.
--
-- Answers 'ok', generation and sequence, and 1 where there is more to do.
local of_layouts = layouts()
local meta = redis.call('HMGET', META, 'accumulator', 'shards', 'generation', 'sequence', 'buckets', 'bucket_layouts',
  'ids_dropped')
local refused = refusal(meta[1], meta[2], meta[3], meta[4])
if refused then return refused end
local buckets = of_layouts.read(meta[5], meta[6])
for _, bucket in ipairs(buckets) do
  if bucket.layout == 'd' and bucket.parts > 0 then
    local left, keys, ids = math.max(0, bucket.parts - ARGV[5]), {}, 0
    for part = left, bucket.parts - 1 do
      keys[#keys + 1] = bucket.key .. ':' .. part
      ids = ids + redis.call('HLEN', keys[#keys])
    end
    bucket.parts = left
    local sequence = meta[4] + 1
    local set = {'sequence', sequence, 'parts:' .. bucket.number, left}
    -- Identities that count as lost already are not recorded: see restore.lua.
    if bucket.ids then
      for _, value in ipairs({'ids_dropped', meta[7] + ids, 'ids:' .. bucket.number, bucket.ids - ids}) do
        set[#set + 1] = value
      end
    end

    -- Nothing was written up to here.
    redis.call('UNLINK', unpack(keys))
    redis.call('HSET', META, unpack(set))
    -- Recorded identities that are missing end with the bucket: then the books say so.
    if left == 0 then redis.call('HDEL', META, 'ids:' .. bucket.number) end
    return {'ok', meta[3], sequence, of_layouts.is_dropping(buckets)}
  end
end
return {'ok', meta[3], meta[4], 0}
