-- Deletes a sealed generation. ARGV[5]: its number; ARGV[6..8]: its units, nanos and pulses as they were read, whose sum
-- the caller has compared with the ledger's; ARGV[9]: how many parts a generation has.
--
-- One step: unlinking a few hundred keys takes well under a millisecond, Redis frees the large ones in the background,
-- and there is no generation that is deleted by half.
--
-- Answers 'ok', generation and sequence, also where it was deleted before; 'gap' and the generation that comes first;
-- 'active' and the active one; 'lost' where its totals are gone; 'changed' where they are not those that were read.
local meta = redis.call('HMGET', META, 'accumulator', 'shards', 'generation', 'sequence', 'deleted')
local refused = refusal(meta[1], meta[2], meta[3], meta[4])
if refused then return refused end
local wanted, deleted = tonumber(ARGV[5]), tonumber(meta[5])
if wanted <= deleted then return {'ok', meta[3], meta[4]} end
if wanted >= tonumber(meta[3]) then return {'active', meta[3]} end
if wanted ~= deleted + 1 then return {'gap', string.format('%.0f', deleted + 1)} end
local sealed = PREFIX .. 'gen:' .. ARGV[5]
local total = redis.call('HMGET', sealed, 'units', 'nanos', 'count')
if not total[1] then return {'lost'} end
if total[1] ~= ARGV[6] or total[2] ~= ARGV[7] or total[3] ~= ARGV[8] then return {'changed'} end

-- Nothing was written up to here.
local keys = {sealed}
for part = 0, tonumber(ARGV[9]) - 1 do keys[#keys + 1] = PREFIX .. 'agg:' .. ARGV[5] .. ':' .. part end
redis.call('UNLINK', unpack(keys))
local sequence = tonumber(meta[4]) + 1
redis.call('HSET', META, 'deleted', ARGV[5], 'sequence', sequence)
return {'ok', meta[3], sequence}
