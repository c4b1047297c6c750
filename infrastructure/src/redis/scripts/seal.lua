-- Seals a generation and opens the next one. ARGV[5]: the generation. ARGV[6..7]: when, in seconds and nanoseconds;
-- both empty for a seal that only makes room, which takes Redis' own time and leaves the buckets alone. ARGV[8..9]: the
-- same time, and the dedupe window, in milliseconds. ARGV[10]: the layout of a bucket that is opened, see buckets.lua.
--
-- Answers 'ok', generation and sequence, also where the generation was sealed before, and 1 where drop.lua has something
-- to do; 'ahead' where it is not active yet.
local of_layouts = layouts()
local all = redis.call('HGETALL', META)
local meta = {}
for i = 1, #all, 2 do meta[all[i]] = all[i + 1] end
local refused = refusal(meta.accumulator, meta.shards, meta.generation, meta.sequence)
if refused then return refused end
local generation, sequence = tonumber(meta.generation), tonumber(meta.sequence)
local wanted = tonumber(ARGV[5])
if wanted > generation then return {'ahead', meta.generation} end
local listed = of_layouts.read(meta.buckets, meta.bucket_layouts)
if wanted < generation then return {'ok', meta.generation, meta.sequence, of_layouts.is_dropping(listed)} end

local seconds, nanoseconds = ARGV[6], ARGV[7]
if seconds == '' then
  local time = redis.call('TIME')
  seconds, nanoseconds = time[1], time[2] .. '000'
end

-- Identities are kept in buckets: one that is open and gets what is new, and those that were closed. A bucket is
-- closed when it has been open for half of the window, and dropped when it was closed for longer than the window.
--
-- All of that goes by the shard's own clock, not by the time of day, because a wrong time of day must not forget
-- identities early. At each seal the clock gains what has passed since the latest time any seal has named, but at most
-- a quarter of the window; so one seal with a wrong time, however far ahead, moves it ahead by that quarter at most,
-- and a bucket is therefore kept for a quarter longer than the window. A time before the latest gains nothing: times
-- that are a little back come from another program's clock, and are waited for. Only where the time is back by more
-- than the window the latest one was wrong, and is corrected, or identities would be kept until it comes true. A long
-- pause between seals counts as a quarter as well: a flush that was missed drops nothing.
local clock, latest = tonumber(meta.clock), tonumber(meta.latest)
local kept, dropping, emptied, dropped, ids_dropped = {}, {}, {}, {}, tonumber(meta.ids_dropped)
for _, bucket in ipairs(listed) do
  if bucket.layout ~= 'd' then
    kept[#kept + 1] = bucket
  elseif bucket.parts > 0 then
    dropping[#dropping + 1] = bucket
  else
    emptied[#emptied + 1] = bucket
  end
end
local opened, expected = {}, 0
if ARGV[6] ~= '' then
  local now, window = tonumber(ARGV[8]), tonumber(ARGV[9])
  local step = now - latest
  if step > 0 then clock = clock + math.floor(math.min(step, window / 4)) end
  if step > 0 or step < -window then latest = now end
  -- The newest bucket stands first, with the time that it was opened; the others with the time they were closed.
  local newest = kept[1]
  if clock - newest.time >= window / 2 then
    expected = newest.layout == 'c' and newest.ids or redis.call('HLEN', newest.key)
    if expected > 0 then
      opened = {number = newest.number + 1, time = clock, layout = ARGV[10]}
      table.insert(kept, 1, opened)
    end
    newest.time = clock
  end
  while #kept > 1 and clock - kept[#kept].time > window * 5 / 4 do
    local oldest = table.remove(kept)
    if oldest.layout == 'c' then
      oldest.layout = 'd'
      table.insert(dropping, 1, oldest)
    else
      dropped[#dropped + 1] = oldest.key
    end
  end
end
for _, bucket in ipairs(dropping) do kept[#kept + 1] = bucket end
local list, buckets, other = of_layouts.write(kept)
-- How far the logs were counted when the generation was sealed, a line each: the position, and the log.
local logs, positions = redis.call('HGETALL', PREFIX .. 'logs'), {}
for i = 1, #logs, 2 do positions[#positions + 1] = logs[i + 1] .. ' ' .. logs[i] end

-- Nothing was written up to here.
for _, key in ipairs(dropped) do
  ids_dropped = ids_dropped + redis.call('HLEN', key)
  redis.call('UNLINK', key)
end
redis.call('HSET', PREFIX .. 'gen:' .. meta.generation, 'total', meta.total, 'rows', meta.rows, 'seconds', seconds,
  'nanoseconds', nanoseconds, 'positions', table.concat(positions, '\n'))
-- Writers that have not written since the generation before the sealed one are gone, or have forgotten.
for field, value in pairs(meta) do
  if string.sub(field, 1, 2) == 'w:' and tonumber(string.match(value, '@(%d+)$')) < generation - 1 then
    redis.call('HDEL', META, field)
  end
end
for _, bucket in ipairs(emptied) do redis.call('HDEL', META, 'parts:' .. bucket.number) end
local set = {'generation', generation + 1, 'sequence', sequence + 1, 'total', string.rep('\0', 16), 'rows', '0',
  'ids_dropped', ids_dropped, list, buckets, 'clock', string.format('%.0f', clock),
  'latest', string.format('%.0f', latest)}
of_layouts.describe_opened(opened, set, expected)
redis.call('HSET', META, unpack(set))
redis.call('HDEL', META, other)
return {'ok', generation + 1, sequence + 1, of_layouts.is_dropping(dropping)}
