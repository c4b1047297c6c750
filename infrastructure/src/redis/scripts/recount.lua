-- Counts the identities that there are in a compact bucket, a step of it; changes nothing. ARGV[1]: the accumulator;
-- ARGV[2..4] are not looked at. ARGV[5]: the bucket; ARGV[6]: a power of two that is not above its parts; ARGV[7..8]: the
-- first number below that which this step counts, and the one that it counts no more.
--
-- A step counts all parts that are a number modulo the power: identities move between these alone. So whatever is split
-- between two steps, each identity is met once, in the step of its number.
--
-- Answers 'ok', how many there are, and how many are recorded in the bucket by now; 'gone' where it is.
local of_layouts = layouts()
local meta = redis.call('HMGET', META, 'accumulator', 'buckets', 'bucket_layouts')
if meta[1] ~= ARGV[1] then return {'gone'} end
for _, bucket in ipairs(of_layouts.read(meta[2], meta[3])) do
  if bucket.number == tonumber(ARGV[5]) and bucket.ids then
    local ids, power = 0, tonumber(ARGV[6])
    for number = tonumber(ARGV[7]), ARGV[8] - 1 do
      for part = number, bucket.parts - 1, power do
        ids = ids + redis.call('HLEN', bucket.key .. ':' .. part)
      end
    end
    return {'ok', ids, bucket.ids}
  end
end
return {'gone'}
