-- Deletes a sealed generation. ARGV[5]: its number; ARGV[6]: its total as the ledger has it; ARGV[7]: the first of the
-- lists of names that this step deletes; ARGV[8]: how many it deletes at most.
--
-- Almost always one step. Rows go first and all at once, so a generation that is deleted by half reads as empty; Redis
-- frees the large keys in the background. A step that is repeated finds nothing to do.
--
-- Answers 'ok', generation and sequence, also where it was deleted before; 'more' and the list to go on with; 'gap' and
-- the generation that comes first; 'active' and the active one; 'lost' where its total is gone; 'other' and its total
-- where that is not the ledger's.
local NAMES = 4096
local meta = redis.call('HMGET', META, 'accumulator', 'shards', 'generation', 'sequence', 'deleted')
local refused = refusal(meta[1], meta[2], meta[3], meta[4])
if refused then return refused end
local wanted, deleted = tonumber(ARGV[5]), tonumber(meta[5])
if wanted <= deleted then return {'ok', meta[3], meta[4]} end
if wanted >= tonumber(meta[3]) then return {'active', meta[3]} end
if wanted ~= deleted + 1 then return {'gap', string.format('%.0f', deleted + 1)} end
local sealed = redis.call('HMGET', PREFIX .. 'gen:' .. ARGV[5], 'total', 'rows')
if not sealed[1] then return {'lost'} end
if sealed[1] ~= ARGV[6] then return {'other', sealed[1]} end

-- Nothing was written up to here.
local lists = math.ceil(tonumber(sealed[2]) / NAMES)
local from = tonumber(ARGV[7])
local to = math.min(lists, from + tonumber(ARGV[8]))
local keys = {PREFIX .. 'agg:' .. ARGV[5]}
for list = from, to - 1 do keys[#keys + 1] = PREFIX .. 'names:' .. ARGV[5] .. ':' .. list end
redis.call('UNLINK', unpack(keys))
if to < lists then return {'more', to} end
redis.call('UNLINK', PREFIX .. 'gen:' .. ARGV[5])
local sequence = tonumber(meta[4]) + 1
redis.call('HSET', META, 'deleted', ARGV[5], 'sequence', sequence)
return {'ok', meta[3], sequence}
