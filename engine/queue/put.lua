-- Puts tasks in line, each where its flow has come to.
-- KEYS: the line (a sorted set), the flows' clocks (a hash), then the key of each task's entry.
-- ARGV: how long entries and clocks are kept (ms), then for each task: id, flow, cost, entry. A cost of 0 is of a task
-- that has paid before, and now goes to the front.
--
-- Start-time fair queueing (Goyal, Vin, Cheng 1996): each flow, which is one priority of one tenant, has a clock that each
-- of its tasks puts forward by its cost. A task's place is that clock, or where the line now is if that is later: who
-- has been silent saves nothing up, and owes nothing. An empty line sets all clocks back, so that they never pile up.

local line, clocks, ttl_ms = KEYS[1], KEYS[2], ARGV[1]
local first = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')
local now = tonumber(first[2] or '0')
if not first[1] then
    redis.call('DEL', clocks)
end
for number = 1, #KEYS - 2 do
    local id, flow, cost, entry = unpack(ARGV, number * 4 - 2, number * 4 + 1)
    redis.call('SET', KEYS[number + 2], entry, 'PX', ttl_ms)
    if not redis.call('ZSCORE', line, id) then
        local start = now
        if tonumber(cost) > 0 then
            start = math.max(now, tonumber(redis.call('HGET', clocks, flow) or '0'))
            redis.call('HSET', clocks, flow, start + tonumber(cost))
        end
        redis.call('ZADD', line, start, id)
    end
end
redis.call('PEXPIRE', clocks, ttl_ms)
