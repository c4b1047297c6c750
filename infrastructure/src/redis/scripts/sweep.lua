-- Removes keys of a shard that is gone: ARGV[5] and what follows. Where the shard is there it removes nothing.
-- Answers 'ok' or 'changed'.
if redis.call('EXISTS', META) == 1 then return {'changed'} end
redis.call('UNLINK', unpack(ARGV, 5))
return {'ok'}
