-- Finds identities; changes nothing. ARGV[1..4] are not looked at. ARGV[5] and what follows: their digests.
--
-- Answers 'ok', the shard's clock and the latest time of day that it has seen (see seal.lua); how many buckets there are in
-- which identities are looked for, and each with its time, the newest first; then for each identity that is found its
-- bucket and its place, both from 0, and its fingerprint. Nothing after 'ok' where there is no such shard.
local of_layouts = layouts()
local FIRST = 5
local meta = redis.call('HMGET', META, 'clock', 'latest', 'buckets', 'bucket_layouts')
local reply = {'ok'}
if not meta[1] then return reply end
local live = {}
for _, bucket in ipairs(of_layouts.read(meta[3], meta[4])) do
  if bucket.layout ~= 'd' then live[#live + 1] = bucket end
end
reply[2], reply[3], reply[4] = meta[1], meta[2], #live
for _, bucket in ipairs(live) do reply[#reply + 1] = string.format('%.0f', bucket.time) end
local hashes = of_layouts.hashes_of(FIRST, #ARGV)
for i, bucket in ipairs(live) do
  local known = {}
  of_layouts.look_in(bucket, FIRST, #ARGV, hashes, known)
  for place, fingerprint in pairs(known) do
    for _, value in ipairs({i - 1, place - 1, fingerprint}) do reply[#reply + 1] = value end
  end
end
return reply
