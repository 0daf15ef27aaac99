-- One exchange between a host and what all hosts keep together. Runs in Redis, as one step.
--
-- KEYS: hosts, meta, full, short, ends, then one for each account asked about. ARGV[1]: the request, msgpack; ARGV[2]:
-- the run id of this server, which the host got when it connected. Returns the answer, msgpack. What is in both says
-- `bank.py`.
--
-- hosts   hash, host -> {incarnation, seq, seen, lease_ms, share, joined}
-- meta    hash: run (of the server that wrote here last), now (its clock), clock, since and frozen (see below), drift
-- full    sorted set, account -> millionths of its limit that are neither spent nor lent, plus the drift of that moment
-- short   sorted set, account -> when a host last got too little of it
-- ends    sorted set, account -> when it is forgotten, which its own key does by itself
-- account hash, host -> {incarnation, spent, claim, now}
--
-- What must hold for each account: the claims of hosts that live, and what others have spent, sum to no more than the
-- limit. A claim is the ceiling that a host may come to by itself, or what it has come to. A host that lives and has
-- said nothing of an account claims its initial share of the limit.
--
-- The clock is this server's, but only goes on while hosts talk and never jumps: while nobody can reach us no lease ends.
-- A server that was started anew may have forgotten something, so nothing is lent (`frozen`) until all hosts must
-- have said what they have, or have lost it.
local MILLION = 1000000
local DAY_MS = 86400000
local SETTLE_MS = 3000   -- with no host that has been here before, it is the beginning of everything
local MAX_SHARES = 500000 -- of all hosts' initial shares
local MAX_FULL = 20000   -- accounts that a new host can be told of
local MAX_SHORT = 100
local SHORT_MS = 60000
local SHORT_AGAIN_MS = 2000

local OK, FENCED, STALE = 0, 1, 2

local me, incarnation, seq, lease_ms, share, had_share, heard, asked = unpack(cmsgpack.unpack(ARGV[1]))
local run = ARGV[2]
local HOSTS, META, FULL, SHORT, ENDS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local FIRST = 5 -- keys before the accounts'

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = redis.call('HMGET', META, 'run', 'now', 'clock', 'since', 'frozen', 'drift')
local clock = tonumber(meta[3] or 0)
clock = clock + math.floor(math.min(math.max(now - tonumber(meta[2] or now), 0), lease_ms / 4))
local since, frozen, drift = tonumber(meta[4] or 0), tonumber(meta[5] or 0), tonumber(meta[6] or 0)

-- who lives
local hosts, shares, alone = {}, 0, true
local raw = redis.call('HGETALL', HOSTS)
for i = 1, #raw, 2 do
  local each = cmsgpack.unpack(raw[i + 1])
  local lives = each[3] + each[4] > clock
  if raw[i] == me then
    hosts[me] = each
  elseif lives then
    hosts[raw[i]] = each
    shares = shares + each[5]
    alone = false
  elseif each[3] + DAY_MS < clock then
    redis.call('HDEL', HOSTS, raw[i])
  end
end

if meta[1] ~= run then
  since = clock
  frozen = clock + (meta[1] and lease_ms or math.min(lease_ms, SETTLE_MS))
end

-- who asks
local mine = hosts[me]
local lived = mine and mine[3] + mine[4] > clock
local joins = incarnation == 0
if joins and had_share > 0 and clock < frozen then
  frozen = math.max(frozen, since + lease_ms)
end
local is_frozen = clock < frozen
if joins then
  incarnation = (mine and mine[1] or 0) + 1
elseif not mine or mine[1] ~= incarnation then
  return cmsgpack.pack({FENCED, 0, 0, 0, 0, {}, {}, {}})
elseif seq <= mine[2] then
  return cmsgpack.pack({STALE, 0, 0, 0, 0, {}, {}, {}})
end
if not joins and not lived then -- it was given up, and what it had may be somebody else's
  return cmsgpack.pack({FENCED, 0, 0, 0, 0, {}, {}, {}})
end
local had = is_frozen and (joins and had_share or mine[5]) or 0
local granted = math.min(share, math.max(MAX_SHARES - shares, had, 0))
local full = {}
if joins then
  local added = granted - (lived and mine[5] or 0)
  if added > 0 then -- it has its share of all accounts from now on, but of those where so much is not left
    drift = drift + added
    full = redis.call('ZRANGEBYSCORE', FULL, '-inf', '(' .. string.format('%.0f', drift), 'LIMIT', 0, MAX_FULL + 1)
    if #full > MAX_FULL then
      drift, granted, full = drift - added, granted - added, {}
    end
  end
end
local joined = joins and clock or mine[6]
redis.call('HSET', HOSTS, me, cmsgpack.pack({incarnation, seq, clock, lease_ms, granted, joined}))

local function whole(number)
  return string.format('%.0f', number)
end

-- what it asks about
local answers = {}
for place, ask in ipairs(asked) do
  local account = KEYS[FIRST + place]
  local limit, spent, claim, have, want, ends_s, kept_ms, known = unpack(ask)
  local entries, others, taken = {}, {}, 0
  local fields = redis.call('HGETALL', account)
  for i = 1, #fields, 2 do
    entries[fields[i]] = cmsgpack.unpack(fields[i + 1])
  end
  for other, amount in pairs(known) do -- what this server has forgotten and the host has not
    if not entries[other] and other ~= me then
      entries[other] = {0, amount, amount, now}
      redis.call('HSET', account, other, cmsgpack.pack(entries[other]))
    end
  end
  for other, entry in pairs(entries) do
    local host = hosts[other]
    if other ~= me then
      if not host and kept_ms > 0 and entry[4] + kept_ms < now then
        redis.call('HDEL', account, other) -- out of the window
      else
        others[#others + 1] = other
        others[#others + 1] = entry[2]
        if host and (host[1] == entry[1] or host[6] + host[4] > clock) then
          taken = taken + math.max(entry[2], entry[3])
        elseif host then
          taken = taken + math.max(entry[2], math.ceil(limit / MILLION * host[5]))
        else
          taken = taken + entry[2]
        end
      end
    end
  end
  for other, host in pairs(hosts) do
    if other ~= me and not entries[other] then
      taken = taken + math.ceil(limit / MILLION * host[5])
    end
  end

  local rest = limit - taken
  local ceiling
  if is_frozen then
    ceiling = math.max(claim, math.min(want, have))
  else
    local least = math.max(claim, math.min(have, rest))
    local more = math.min(want, rest) - least
    if more > 0 then
      local free = rest - least
      if not alone then -- half of what is there, so that something is left for the next one who asks
        free = math.min(free, math.max(math.ceil(free / 2), math.floor(limit / 1000)))
      end
      ceiling = least + math.min(more, free)
    else
      ceiling = math.max(claim, math.min(want, rest))
    end
  end
  local free = math.max(rest - ceiling, 0)
  redis.call('HSET', account, me, cmsgpack.pack({incarnation, spent, ceiling, now}))
  local forgotten = whole(DAY_MS + (ends_s > 0 and ends_s * 1000 or now + kept_ms))
  if limit > 0 or redis.call('PTTL', account) < 0 then
    redis.call('PEXPIREAT', account, forgotten)
  end
  if limit > 0 then
    local part = math.floor(free / limit * MILLION)
    if part < MAX_SHARES then
      redis.call('ZADD', FULL, whole(part + drift), account)
      redis.call('ZADD', ENDS, forgotten, account)
    else
      redis.call('ZREM', FULL, account)
    end
    if ceiling < want and free * 20 < limit and not is_frozen then
      local last = redis.call('ZSCORE', SHORT, account)
      if not last or tonumber(last) + SHORT_AGAIN_MS < clock then
        redis.call('ZADD', SHORT, whole(clock), account)
      end
    end
  end
  answers[place] = {ceiling, free, others}
end

local short = {}
if not joins then
  short = redis.call('ZRANGEBYSCORE', SHORT, whole(heard), '+inf', 'LIMIT', 0, MAX_SHORT)
end
for _, account in ipairs(redis.call('ZRANGEBYSCORE', ENDS, '-inf', whole(now), 'LIMIT', 0, MAX_SHORT)) do
  redis.call('ZREM', FULL, account)
  redis.call('ZREM', ENDS, account)
end
redis.call('ZREMRANGEBYSCORE', SHORT, '-inf', whole(clock - SHORT_MS))
redis.call('HSET', META, 'run', run, 'now', whole(now), 'clock', whole(clock), 'since', whole(since),
  'frozen', whole(frozen), 'drift', whole(drift))
return cmsgpack.pack({OK, incarnation, clock, granted, is_frozen and 1 or 0, full, short, answers})
