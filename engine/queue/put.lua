-- Puts tasks into the queue, each at the place that its flow has reached.
-- KEYS: the queue (a sorted set), the flows' clocks (a hash), then the key of each task's entry.
-- ARGV: how long entries and clocks are kept (ms), then for each task: id, flow, cost, entry. A cost of 0 is that of a
-- task that has paid before: it goes to the front.
--
-- Start-time fair queueing (Goyal, Vin, Cheng 1996): each flow, which is one priority of one tenant, has a clock that
-- each of its tasks moves on by its cost. A task's place is that clock, or the place of the queue's first task if that is
-- later: a flow that was silent has saved nothing up, and owes nothing. An empty queue deletes all clocks, so that they
-- never pile up.

local queue, clocks, ttl_ms = KEYS[1], KEYS[2], ARGV[1]
local first = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
local now = tonumber(first[2] or '0')
if not first[1] then
    redis.call('DEL', clocks)
end
for number = 1, #KEYS - 2 do
    local id, flow, cost, entry = unpack(ARGV, number * 4 - 2, number * 4 + 1)
    redis.call('SET', KEYS[number + 2], entry, 'PX', ttl_ms)
    if not redis.call('ZSCORE', queue, id) then
        local start = now
        if tonumber(cost) > 0 then
            start = math.max(now, tonumber(redis.call('HGET', clocks, flow) or '0'))
            redis.call('HSET', clocks, flow, start + tonumber(cost))
        end
        redis.call('ZADD', queue, start, id)
    end
end
redis.call('PEXPIRE', clocks, ttl_ms)
