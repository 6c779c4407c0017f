-- Takes the first task of the queue that has room in a worker's free memory. The tasks before it keep their places.
-- KEYS: the queue (a sorted set).
-- ARGV: prefix of the keys of entries, free MiB, MiB of all tasks together, MiB of a task whose entry does not say, how
-- many tasks to look at, how many tasks may pass the first one by, how long that number is kept (ms).
-- Answers id, score and MiB of the task; 1 when tasks wait and none was taken; nothing when the queue is empty.
--
-- A task that is larger than all the memory there is gets taken, too: its worker ends it and says why. The first task of
-- the queue can be passed by a limited number of times. After that no worker takes another one before it, until one of
-- them has enough memory free.

local queue, prefix = KEYS[1], ARGV[1]
local free, whole, unknown, look, most, ttl_ms = unpack(ARGV, 2)
local line = redis.call('ZRANGE', queue, 0, tonumber(look) - 1, 'WITHSCORES')
if not line[1] then
    return false
end
local passed = queue .. ':passed:' .. line[1]
if tonumber(redis.call('GET', passed) or '0') >= tonumber(most) then
    line = {line[1], line[2]}
end
for number = 1, #line, 2 do
    local entry = redis.call('GET', prefix .. line[number]) or ''
    local size = tonumber(string.match(entry, '"memory_mib":(%d+)') or unknown)
    if size <= tonumber(free) or size > tonumber(whole) then
        redis.call('ZREM', queue, line[number])
        if number == 1 then
            redis.call('DEL', passed)
        else
            redis.call('INCR', passed)
            redis.call('PEXPIRE', passed, ttl_ms)
        end
        return {line[number], line[number + 1], size}
    end
end
return 1
