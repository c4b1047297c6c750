-- For tests only, before seal.lua: the mutation in which what is flushed has one place. Where something is left there,
-- the active generation takes its place, as RENAME does, without a word.
do
  local meta = redis.call('HMGET', META, 'generation', 'deleted', 'total', 'rows', 'sequence')
  local active = tonumber(meta[1])
  local last = active and active - 1
  if active and last > tonumber(meta[2]) and tonumber(ARGV[5]) == active then
    redis.call('RENAME', PREFIX .. 'agg:' .. active, PREFIX .. 'agg:' .. last)
    for list = 0, math.ceil(tonumber(meta[4]) / 4096) - 1 do
      redis.call('RENAME', PREFIX .. 'names:' .. active .. ':' .. list, PREFIX .. 'names:' .. last .. ':' .. list)
    end
    redis.call('HSET', PREFIX .. 'gen:' .. last, 'total', meta[3], 'rows', meta[4])
    redis.call('HSET', META, 'total', string.rep('\0', 16), 'rows', '0', 'sequence', meta[5] + 1)
    return {'ok', meta[1], meta[5] + 1}
  end
end
