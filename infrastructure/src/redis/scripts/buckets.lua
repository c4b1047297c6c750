-- The buckets in which the identities of a shard are remembered: all that the scripts know of their two layouts.
--
-- fast: one hash, ids:B, from the digest of an identity to its fingerprint.
-- compact: the same in many hashes, ids:B:0, ids:B:1 and so on, the parts: so small that Redis packs each into one
-- piece of memory (a listpack), in which an identity takes a third. `parts:B` in meta says how many they are, and `ids:B`
-- how many identities are in them.
--
-- Meta lists the buckets, the newest first, as NUMBER@TIME: in `buckets` where all are fast. Where one is not, `buckets`
-- is not there and the list is in `bucket_layouts`, with a letter behind each that is not fast: c, or d for one that was
-- compact and is being dropped, where nothing is looked for any more. So a program that knows of no layouts fails at once
-- instead of taking what it does not find for new.
--
-- The scripts have this as a function, `layouts`, that returns what they call: apply.lua makes nothing of it where all
-- buckets are fast.

-- One part more is made where there are more identities for each than this. Parts that were not split for longest hold
-- twice as many on average, and with the spread around that stay within 128, up to which Redis packs them.
local PART_IDS = 48
-- How many parts one step makes: enough for those of a batch.
local SPLITS = 128
-- How many values one command takes: unpack takes less than 8,000.
local VALUES = 6000

-- Reads the list, `parts` and `ids` of compact buckets with it. A list that is in neither place is an error.
local function read_buckets(buckets, layouts)
  local list, fields = {}, {}
  for number, time, layout in string.gmatch(buckets or layouts, '(%d+)@(%d+)([^,]*)') do
    local bucket = {number = tonumber(number), time = tonumber(time), layout = layout, key = PREFIX .. 'ids:' .. number}
    if layout ~= '' then
      if layout ~= 'c' and layout ~= 'd' then error('bucket ' .. number .. ' has a layout that nobody knows: ' .. layout) end
      fields[#fields + 1], fields[#fields + 2] = 'parts:' .. number, 'ids:' .. number
    end
    list[#list + 1] = bucket
  end
  if #fields > 0 then
    local values, at = redis.call('HMGET', META, unpack(fields)), 1
    for _, bucket in ipairs(list) do
      if bucket.layout ~= '' then
        bucket.parts, bucket.ids = tonumber(values[at]), tonumber(values[at + 1])
        at = at + 2
      end
    end
  end
  return list
end

-- The list as it is written: the field that it stands in, the list, and the field that it does not stand in.
local function write_buckets(list)
  local texts, field, other = {}, 'buckets', 'bucket_layouts'
  for i, bucket in ipairs(list) do
    texts[i] = string.format('%.0f@%.0f', bucket.number, bucket.time) .. bucket.layout
    if bucket.layout ~= '' then field, other = 'bucket_layouts', 'buckets' end
  end
  return field, table.concat(texts, ','), other
end

-- Adds to fields and values what meta says of a bucket that is opened; it is expected to get about so many identities.
local function describe_opened(bucket, set, ids)
  if bucket.layout ~= 'c' then return end
  local parts = math.max(1, math.ceil(ids / PART_IDS))
  for _, value in ipairs({'parts:' .. bucket.number, parts, 'ids:' .. bucket.number, 0}) do set[#set + 1] = value end
end

-- Whether there are parts of dropped buckets: 1 or 0.
local function is_dropping(list)
  for _, bucket in ipairs(list) do
    if bucket.layout == 'd' and bucket.parts > 0 then return 1 end
  end
  return 0
end

-- The largest power of two that is not above a number of parts.
local function power_within(parts)
  local power = 1
  while 2 * power <= parts do power = 2 * power end
  return power
end

-- Linear hashing (Litwin 1980): of the first four bytes of a digest as many bits as number the parts; where that part is
-- not made yet, the one that it will be split from. Digests are keyed and as good as random.
local function part_of(hash, parts, power)
  local part = hash % (2 * power)
  if part >= parts then return part - power end
  return part
end

-- What parts are found by, for the identities in ARGV.
local function hashes_of(first, last)
  local hashes = {}
  for i = first, last do hashes[i - first + 1] = struct.unpack('>I4', ARGV[i]) end
  return hashes
end

-- The keys of the parts in which they are. Kept with the bucket until a part is split.
local function keys_of(bucket, hashes)
  if not bucket.keys then
    local keys, format, parts, power = {}, string.format, bucket.parts, power_within(bucket.parts)
    for i, hash in ipairs(hashes) do keys[i] = format('%s:%d', bucket.key, part_of(hash, parts, power)) end
    bucket.keys = keys
  end
  return bucket.keys
end

-- Looks for the identities in ARGV that are not known; notes the fingerprints of those that are in the bucket, and
-- returns how many that are.
local function look_in(bucket, first, last, hashes, known)
  local count = 0
  if bucket.layout == '' then
    local found = redis.call('HMGET', bucket.key, unpack(ARGV, first, last))
    for i = 1, last - first + 1 do
      if found[i] and not known[i] then
        known[i] = found[i]
        count = count + 1
      end
    end
  elseif bucket.layout == 'c' and bucket.ids > 0 then
    local keys = keys_of(bucket, hashes)
    for i = 1, last - first + 1 do
      if not known[i] then
        local found = redis.call('HGET', keys[i], ARGV[first + i - 1])
        if found then
          known[i] = found
          count = count + 1
        end
      end
    end
  end
  return count
end

local function in_steps(command, key, values)
  for from = 1, #values, VALUES do
    redis.call(command, key, unpack(values, from, math.min(from + VALUES - 1, #values)))
  end
end

-- Makes the next part: it gets what belongs there of the one part in which all of that is.
local function split(bucket)
  local power, part = power_within(bucket.parts), bucket.parts
  local from = bucket.key .. ':' .. (part - power)
  local all = redis.call('HGETALL', from)
  local moved, left = {}, {}
  for i = 1, #all, 2 do
    if struct.unpack('>I4', all[i]) % (2 * power) == part then
      moved[#moved + 1], moved[#moved + 2] = all[i], all[i + 1]
      left[#left + 1] = all[i]
    end
  end
  in_steps('HSET', bucket.key .. ':' .. part, moved)
  in_steps('HDEL', from, left)
  bucket.parts, bucket.keys = part + 1, nil
end

-- Remembers the identities in ARGV that are not known, so many, in a compact bucket, and adds to fields and values what
-- meta says of it then.
local function remember(bucket, first, last, hashes, known, count, fingerprints, set)
  bucket.ids = bucket.ids + count
  local wanted = math.ceil(bucket.ids / PART_IDS)
  -- In an empty bucket there is nothing to move.
  if bucket.ids == count then bucket.parts, bucket.keys = math.max(bucket.parts, wanted), nil end
  for _ = 1, math.min(SPLITS, wanted - bucket.parts) do split(bucket) end
  local keys = keys_of(bucket, hashes)
  for i = 1, last - first + 1 do
    if not known[i] then
      redis.call('HSET', keys[i], ARGV[first + i - 1], string.sub(fingerprints, i * 6 - 5, i * 6))
    end
  end
  for _, value in ipairs({'parts:' .. bucket.number, bucket.parts, 'ids:' .. bucket.number, bucket.ids}) do
    set[#set + 1] = value
  end
end

return {
  read = read_buckets, write = write_buckets, describe_opened = describe_opened, is_dropping = is_dropping,
  hashes_of = hashes_of, look_in = look_in, remember = remember,
}
