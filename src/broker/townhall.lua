#!lua name=townhall_1
--[[
The rooms of Townhall in Redis. This is format 1; another format gets another library name, so that nodes of two versions
can work side by side until the last old one is gone.

A room has four keys, always given in this order:
  log       a stream; entry `<offset>-0` with the fields `at` (Unix ms) and `e` (the event, one JSON object on one line)
  meta      a hash: `format`, `epoch`, `offset`, `replid` (of the server that wrote the epoch), `forks` (`EPOCH:UNTIL,…`,
            oldest first), `at` (of the newest message), `since` (when `seen` was begun), `expires` (what log and meta
            were told, Unix ms; 0: never)
  seen      a hash: message key -> offset, begun at `since`
  seen:old  the generation before

Offsets are dense, and what a server tells under an epoch is never changed: every call, reads included, compares
`master_replid`, which changes when Redis restarts or a replica takes over. Then messages may be missing, so the epoch ends
in a fork and offsets go on under a new one. A room without meta has lost its past: a new epoch without forks.

Dedupe in two generations costs one hash field a message (a key of 16 bytes, an offset): 82 bytes measured on Redis 7.0 with
200,000 messages, where a key for each message with its own expiry takes 148. A whole generation goes with one UNLINK, off
the main thread.

Who is in a room is kept in other keys, all of which expire by themselves when no node renews them; see `members` below.
]]

local PUBLISH = 'PUBLISH' -- the servers of a cluster are given SPUBLISH
local FORMAT = '1'
local MAX_FORKS = 16
local MAX_OFFSET = 9007199254740991 -- what a Lua number counts exactly

-- `INFO` costs a quarter of a call, so its answer is kept for a second. A node that was promoted has not run our functions
-- (they may write) for longer than that, and after a restart there is nothing kept.
local replid = nil
local replid_read = 0

local function server_replid(now)
  local age = now - replid_read
  if not replid or age >= 1000 or age < 0 then
    replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
    replid_read = now
  end
  return replid
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%d', number)
end

local function refuse(words)
  error({ err = 'FORMAT ' .. words })
end

-- A number that we wrote; nil for anything else.
local function count(text)
  local number = text and not string.find(text, '%D') and tonumber(text)
  return number and number <= MAX_OFFSET and number or nil
end

-- Epochs that were found to be ours: a pattern over each of its letters costs as much as another command.
local epochs, epochs_kept = {}, 0

local function is_epoch(text)
  if not epochs[text] then
    if #text > 64 or not string.match(text, '^[%w._-]+$') then
      return false
    end
    if epochs_kept == 1000 then
      epochs, epochs_kept = {}, 0
    end
    epochs[text], epochs_kept = true, epochs_kept + 1
  end
  return true
end

local function key_names(keys)
  return { log = keys[1], meta = keys[2], seen = keys[3], old = keys[4] }
end

-- The highest offset that the log ever had, and the oldest one that is there.
local function inspect_log(keys)
  if redis.call('EXISTS', keys.log) == 0 then
    return 0, nil
  end
  local info = redis.call('XINFO', 'STREAM', keys.log)
  local last, oldest = 0, nil
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      last = tonumber(string.match(info[i + 1], '^%d+'))
    elseif info[i] == 'first-entry' and info[i + 1] then
      oldest = tonumber(string.match(info[i + 1][1], '^%d+'))
    end
  end
  if last > MAX_OFFSET then
    refuse('the log has an entry with an id that no version writes')
  end
  return last, oldest
end

-- Log and meta live as long as somebody speaks at least every `ttl` ms. The time is moved on in steps of a sixteenth, since
-- most calls then need not touch it.
local function keep_alive(keys, room, ttl, now)
  local expires = 0
  if ttl > 0 then
    local step = math.floor(ttl / 16)
    if room.expires >= now + ttl and room.expires <= now + ttl + step then
      return
    end
    expires = now + ttl + step
    redis.call('PEXPIREAT', keys.log, whole(expires))
    redis.call('PEXPIREAT', keys.meta, whole(expires))
  elseif room.expires > 0 then
    redis.call('PERSIST', keys.log)
    redis.call('PERSIST', keys.meta)
  end
  if expires ~= room.expires then
    redis.call('HSET', keys.meta, 'expires', whole(expires))
    room.expires = expires
  end
end

local function save(keys, room)
  if room.saved then
    redis.call('HSET', keys.meta, 'offset', whole(room.offset), 'at', whole(room.at))
  else
    redis.call('HSET', keys.meta,
      'format', FORMAT, 'epoch', room.epoch, 'offset', whole(room.offset), 'replid', room.replid,
      'forks', room.forks, 'at', whole(room.at))
    room.saved = true
  end
end

-- A room that begins, or whose past nobody can vouch for: what was seen belongs to that past.
local function begin_room(keys, epoch, offset, forks, now)
  redis.call('UNLINK', keys.meta, keys.seen, keys.old)
  return {
    epoch = epoch, offset = offset, forks = forks, replid = server_replid(now), at = 0, since = 0, expires = 0,
    saved = false,
  }
end

local function fork(keys, room, candidate, now)
  local forks = {}
  for one in string.gmatch(room.forks, '[^,]+') do
    forks[#forks + 1] = one
  end
  forks[#forks + 1] = room.epoch .. ':' .. whole(room.offset)
  room.forks = table.concat(forks, ',', math.max(1, #forks - MAX_FORKS + 1))
  room.epoch = candidate
  room.replid = server_replid(now)
  room.saved = false
  save(keys, room)
end

-- The room as its meta has it; nil where that is missing.
local function open_room(keys, candidate, now)
  local meta = redis.call('HMGET', keys.meta,
    'format', 'epoch', 'offset', 'replid', 'forks', 'at', 'since', 'expires')
  if meta[1] and meta[1] ~= FORMAT then
    refuse(string.sub(meta[1], 1, 20) .. ', and this is format ' .. FORMAT)
  end
  if meta[2] and not is_epoch(meta[2]) then
    refuse('its epoch is none that we write')
  end
  local offset = count(meta[3])
  if not (meta[1] and meta[2] and offset) then
    return nil
  end
  local room = {
    epoch = meta[2], offset = offset, replid = meta[4], forks = meta[5] or '',
    at = count(meta[6]) or 0, since = count(meta[7]) or 0, expires = count(meta[8]) or 0,
    saved = true, -- but for what changes with every message
  }
  if room.replid ~= server_replid(now) then
    fork(keys, room, candidate, now)
  end
  return room
end

-- The room for a reader, who alone looks whether meta is behind the log; nil while nobody has spoken.
local function read_room(keys, candidate, ttl, now)
  local room = open_room(keys, candidate, now)
  local last, oldest = inspect_log(keys)
  if not room and last == 0 then
    return nil
  end
  if not room or room.offset < last then
    room = begin_room(keys, candidate, last, '', now)
    save(keys, room)
    keep_alive(keys, room, ttl, now)
  end
  return room, oldest or room.offset + 1
end

-- Where the messages begin among publish's arguments: all keys, then all events.
local FIRST = 6

-- What one PUBLISH carries. Redis' Lua hashes every byte of every string that comes into being, and what does not fit into
-- its buffer of 8 KiB it puts together out of several strings.
local PAYLOAD_BYTES = 8000

-- Lists that are filled anew by every call, up to a length that is kept beside: growing a list costs more than filling it.
local fields, pieces = {}, {}

local function generation_is_over(room, dedupe, now)
  local age = now - room.since
  return age < 0 or age >= dedupe
end

-- A generation takes what is stored in `dedupe` ms, and is needed for as long again; then it goes, spoken or not. Done before
-- anything is stored: while a cluster moves the room's slot, Redis refuses keys that are not there, and so this.
local function rotate(keys)
  redis.call('UNLINK', keys.old)
  if redis.call('EXISTS', keys.seen) == 1 then
    redis.call('RENAME', keys.seen, keys.old)
  end
end

-- Remembers the first `count` of `fields`; they may begin a generation.
local function remember(keys, room, count, dedupe, now, rotated)
  redis.call('HSET', keys.seen, unpack(fields, 1, count))
  if rotated then
    room.since = now
    redis.call('PEXPIREAT', keys.seen, whole(now + 2 * dedupe))
    redis.call('HSET', keys.meta, 'since', whole(now))
  end
end

-- For an answer to XADD that is an error: nothing where the log is ahead of meta, and an error for anything else.
local function refused(added)
  if not string.find(added.err, 'equal or smaller', 1, true) then
    error(added)
  end
end

-- The offsets of messages that were seen before; false or nil for the others.
local function offsets_seen(keys, args, last)
  local offsets = redis.call('HMGET', keys.seen, unpack(args, FIRST, last))
  local old = redis.call('HMGET', keys.old, unpack(args, FIRST, last))
  for i = 1, #old do
    offsets[i] = count(offsets[i] or old[i])
  end
  return offsets
end

local function all_seen(offsets, messages)
  for i = 1, messages do
    if not offsets[i] then
      return false
    end
  end
  return true
end

-- `append` for one message, without lists: with little to do a call carries one, and then its fixed costs are what counts.
local function append_one(keys, room, id, event, now)
  local offset = whole(room.offset + 1)
  local seen = redis.call('HGET', keys.old, id)
  if not seen and redis.call('HSETNX', keys.seen, id, offset) == 0 then
    seen = redis.call('HGET', keys.seen, id)
  end
  seen = count(seen)
  if seen then
    return { seen }, {}
  end
  room.at = math.max(room.at, now)
  local at = whole(room.at)
  local added = redis.pcall('XADD', keys.log, offset, 'at', at, 'e', event)
  if type(added) == 'table' then
    redis.call('HDEL', keys.seen, id)
    return refused(added)
  end
  room.offset = room.offset + 1
  return { room.offset }, { FORMAT .. ' ' .. room.epoch .. ' ' .. offset .. ' ' .. at .. ' ' .. event }
end

-- Stores what was not seen before, and remembers it. Answers the offset of every message, or only the first one where all
-- are new, and what to publish: a line of each that is new. Nil when the log is ahead of meta (then nothing was stored).
local function append(keys, room, args, dedupe, now)
  local messages = (#args - FIRST + 1) / 2
  if messages == 1 and not generation_is_over(room, dedupe, now) then
    return append_one(keys, room, args[FIRST], args[FIRST + 1], now)
  end
  local offsets, twice, payloads = offsets_seen(keys, args, FIRST + messages - 1), {}, {}
  if all_seen(offsets, messages) then
    return offsets, payloads
  end
  local rotates = generation_is_over(room, dedupe, now)
  if rotates then
    rotate(keys)
  end
  local log, pcall = keys.log, redis.pcall
  local before, at = room.offset, whole(math.max(room.at, now))
  local line_head, after_offset = FORMAT .. ' ' .. room.epoch .. ' ', ' ' .. at .. ' '
  local field, piece, bytes, around = 0, 0, 0, #line_head + 16 + #after_offset + 1
  for i = 1, messages do
    local id = args[FIRST + i - 1]
    offsets[i] = offsets[i] or twice[id]
    if not offsets[i] then
      local event, offset = args[FIRST + messages + i - 1], whole(room.offset + 1)
      local added = pcall('XADD', log, offset, 'at', at, 'e', event)
      if type(added) == 'table' then
        return refused(added)
      end
      room.offset = room.offset + 1
      offsets[i], twice[id] = room.offset, room.offset
      fields[field + 1], fields[field + 2] = id, offset
      field = field + 2

      local line_bytes = around + #event
      if piece > 0 and bytes + line_bytes > PAYLOAD_BYTES then
        payloads[#payloads + 1] = table.concat(pieces, '', 2, piece)
        piece, bytes = 0, 0
      end
      pieces[piece + 1], pieces[piece + 2], pieces[piece + 3] = '\n', line_head, offset
      pieces[piece + 4], pieces[piece + 5] = after_offset, event
      piece, bytes = piece + 5, bytes + line_bytes
    end
  end
  payloads[#payloads + 1] = table.concat(pieces, '', 2, piece)
  room.at = math.max(room.at, now)
  remember(keys, room, field, dedupe, now, rotates)
  return room.offset - before == messages and { before + 1 } or offsets, payloads
end

-- Redis trims by whole nodes of up to a hundred entries, so there is something to trim every hundred messages.
local function trim(keys, before, offset, keep)
  if math.floor(before / 100) ~= math.floor(offset / 100) then
    redis.call('XTRIM', keys.log, 'MAXLEN', '~', keep)
  end
end

-- publish LOG META SEEN OLD | CHANNEL CANDIDATE KEEP TTL_MS DEDUPE_MS KEY … EVENT … -> EPOCH OFFSET …
-- An event for each key. An offset for each, too, or only the first one where they follow each other.
local function publish(key_list, args)
  local keys, now = key_names(key_list), now_ms()
  local channel, candidate = args[1], args[2]
  local keep, ttl, dedupe = args[3], tonumber(args[4]), tonumber(args[5])

  local room = open_room(keys, candidate, now)
  local before, offsets, payloads
  for _ = 1, 2 do
    if not room then
      local last = inspect_log(keys)
      room = begin_room(keys, candidate, last, last == 0 and ':0' or '', now)
    end
    before = room.offset
    offsets, payloads = append(keys, room, args, dedupe, now)
    if offsets then
      break
    end
    room = nil
  end
  if not offsets then
    refuse('the log does not take what follows its last entry')
  end

  -- Even where nothing is new: who answers for a message by WAIT must have written something over its own connection, and
  -- what it asks about may have come over another one.
  save(keys, room)
  if room.offset > before then
    keep_alive(keys, room, ttl, now)
    trim(keys, before, room.offset, keep)
    for _, payload in ipairs(payloads) do
      redis.call(PUBLISH, channel, payload)
    end
  end
  return { room.epoch, unpack(offsets) }
end

-- head LOG META SEEN OLD | CANDIDATE TTL_MS -> EPOCH OFFSET OLDEST FORKS
local function head(key_list, args)
  local room, oldest = read_room(key_names(key_list), args[1], tonumber(args[2]), now_ms())
  if not room then
    return { '', 0, 1, '' }
  end
  return { room.epoch, room.offset, oldest, room.forks }
end

-- history LOG META SEEN OLD | CANDIDATE TTL_MS XRANGE|XREVRANGE START END LIMIT -> EPOCH OFFSET OLDEST FORKS ENTRIES
local function history(key_list, args)
  local answer = head(key_list, args)
  answer[5] = redis.call(args[3], key_list[1], args[4], args[5], 'COUNT', args[6]) or {}
  return answer
end

-- probe KEY | CHANNEL WORD: is refused whenever publish would be, and stores nothing
local function probe(_, args)
  redis.call(PUBLISH, args[1], args[2])
  return redis.status_reply('OK')
end

-- check LOG | CHANNEL [WAIT] -> what the caller's user may not do of all that is done here and beside
local function check(key_list, args)
  local log, channel, sharded = key_list[1], args[1], PUBLISH == 'SPUBLISH' and 'S' or ''
  local needed = {
    { 'TIME' }, { 'INFO', 'replication' }, { 'EXISTS', log }, { 'UNLINK', log }, { 'RENAME', log, log },
    { 'PEXPIRE', log, '1' }, { 'PEXPIREAT', log, '1' }, { 'PERSIST', log }, { 'HGET', log, 'f' }, { 'HMGET', log, 'f' }, { 'HGETALL', log },
    { 'HLEN', log }, { 'HSCAN', log, '0' }, { 'HRANDFIELD', log, '1' }, { 'HSET', log, 'f', 'v' }, { 'HSETNX', log, 'f', 'v' }, { 'HDEL', log, 'f' },
    { 'XADD', log, '*', 'f', 'v' }, { 'XTRIM', log, 'MAXLEN', '1' }, { 'XINFO', 'STREAM', log },
    { 'XRANGE', log, '-', '+' }, { 'XREVRANGE', log, '+', '-' },
    { PUBLISH, channel, '' }, { sharded .. 'SUBSCRIBE', channel }, { sharded .. 'UNSUBSCRIBE', channel },
    { 'FUNCTION', 'LIST' }, { 'FUNCTION', 'LOAD', '' },
  }
  if args[2] then
    needed[#needed + 1] = { 'WAIT', '1', '1' }
  end
  local lacks = {}
  for _, command in ipairs(needed) do
    if not redis.acl_check_cmd(unpack(command)) then
      local on = (command[2] == log or command[2] == channel) and command[2] or command[3] == log and log
      lacks[#lacks + 1] = command[1] .. (on and ' on ' .. on or '')
    end
  end
  return lacks
end

redis.register_function('townhall_1_publish', publish)
redis.register_function('townhall_1_probe', probe)
redis.register_function { function_name = 'townhall_1_check', callback = check, flags = { 'no-writes' } }
-- Readers write nothing but a fork, and must work when memory is full.
redis.register_function { function_name = 'townhall_1_head', callback = head, flags = { 'allow-oom' } }
redis.register_function { function_name = 'townhall_1_history', callback = history, flags = { 'allow-oom' } }
-- Where Redis takes no writes for want of disk or replicas, a room that needs no fork can still be read.
redis.register_function { function_name = 'townhall_1_head_ro', callback = head, flags = { 'no-writes' } }
redis.register_function { function_name = 'townhall_1_history_ro', callback = history, flags = { 'no-writes' } }

--[[
Who is in a room. A node says which users it has there; a user is in the room who is at one node at least.
  members         a hash: user -> `NODES NAME`, at how many nodes it is and how it was called last
  members:nodes   a hash: node -> `EXPIRES SINCE STEP REPLID`: until when its lease is valid and since when it was without a
                  break (Unix ms), its last call, and the server that took it; `@` -> the version, another one whenever
                  somebody came or went
  members:NODE    a hash: the users of that node -> the step in which it named them last

All three have a field with an empty name that holds the same random value: a key that is lost alone (evicted, deleted) is
found out, and everything begins anew. What a node said to another server than this one may be lost in part, so that is to be
said again, too. A change is the state that it leads to, so it may be made twice.
]]

local LISTED = 200 -- a longer list is not told, but for a part of it when that is asked for
local SWEPT = 1024 -- so many users of dead nodes are removed in one call
local OUTLIVE = 3600000 -- the keys outlive the lease by so long: what is swept must be there

local function begin_roll(roll)
  redis.call('UNLINK', roll.members, roll.nodes)
  redis.call('HSET', roll.members, '', roll.fresh)
  redis.call('HSET', roll.nodes, '', roll.fresh)
  roll.birth, roll.changed, roll.own = roll.fresh, true, nil
end

local function registration(text)
  local expires, since, step, replid = string.match(text or '', '^(%d+) (%d+) (%d+) (%x*)$')
  if not expires then
    return nil
  end
  return { expires = tonumber(expires), since = tonumber(since), step = tonumber(step), replid = replid }
end

-- Whether all who were here have said nothing for a whole lease after theirs lapsed.
local function is_abandoned(roll, now, lease)
  local nodes = redis.call('HGETALL', roll.nodes)
  for i = 1, #nodes, 2 do
    local lapsed = registration(nodes[i + 1])
    if lapsed and lapsed.expires > now - lease then
      return false
    end
  end
  return true
end

-- `begins`: the node has told nobody who is here, so it may forget those whom nobody vouches for. If one of their nodes is
-- alive after all, it finds out that it has to say everything again.
local function open_roll(roll, node, begins, now, lease)
  -- All three are read in any case: what is no hash is somebody else's, and an error.
  local all, mine = redis.call('HGET', roll.members, ''), redis.call('HGET', roll.mine, '')
  roll.birth = redis.call('HGET', roll.nodes, '')
  roll.own = registration(redis.call('HGET', roll.nodes, node))
  local is_whole = roll.birth and roll.birth == all and (not roll.own or mine == roll.birth)
  if not is_whole or (begins and not roll.own and is_abandoned(roll, now, lease)) then
    begin_roll(roll)
  end
  if mine ~= roll.birth then
    redis.call('UNLINK', roll.mine)
    redis.call('HSET', roll.mine, '', roll.birth)
  end
end

local function member(roll, user)
  local nodes, name = string.match(redis.call('HGET', roll.members, user) or '', '^(%d+) (.*)$')
  return tonumber(nodes) or 0, name
end

local function come(roll, user, name, step)
  local added = redis.call('HSET', roll.mine, user, step)
  local nodes, called = member(roll, user)
  if added == 1 or called ~= name then
    redis.call('HSET', roll.members, user, whole(nodes + added) .. ' ' .. name)
    roll.changed = roll.changed or nodes == 0 or called ~= name
  end
end

local function go(roll, users, user)
  if user == '' or redis.call('HDEL', users, user) == 0 then
    return
  end
  local nodes, name = member(roll, user)
  if nodes > 1 then
    redis.call('HSET', roll.members, user, whole(nodes - 1) .. ' ' .. name)
  else
    redis.call('HDEL', roll.members, user)
    roll.changed = true
  end
end

-- Whoever this node has not named since `step` is not there.
local function purge(roll, step)
  local users = redis.call('HGETALL', roll.mine)
  for i = 1, #users, 2 do
    if (count(users[i + 1]) or 0) < step then
      go(roll, roll.mine, users[i])
    end
  end
end

-- Removes what nodes have left whose lease has lapsed; not `node`, who is calling. False: it is not what they left, so nothing
-- is known for sure.
local function sweep(roll, node, now)
  local left, nodes = SWEPT, redis.call('HGETALL', roll.nodes)
  for i = 1, #nodes, 2 do
    local lapsed = nodes[i] ~= node and registration(nodes[i + 1])
    if lapsed and lapsed.expires <= now and left > 0 then
      local theirs = roll.members .. ':' .. nodes[i]
      if redis.call('HGET', theirs, '') ~= roll.birth then
        return false
      end
      for _, user in ipairs(redis.call('HRANDFIELD', theirs, left)) do
        go(roll, theirs, user)
        left = left - 1
      end
      if redis.call('HLEN', theirs) > 1 then
        roll.unfinished = true
      else
        redis.call('UNLINK', theirs)
        redis.call('HDEL', roll.nodes, nodes[i])
      end
    elseif lapsed and lapsed.expires <= now then
      roll.unfinished = true
    end
  end
  return true
end

-- Users and names of all, or of some where there are too many to list.
local function list(roll, total)
  local found, cursor = {}, '0'
  repeat
    local page = { '0', nil }
    if total <= LISTED then
      page[2] = redis.call('HGETALL', roll.members)
    else
      page = redis.call('HSCAN', roll.members, cursor, 'COUNT', 256)
    end
    cursor = page[1]
    for i = 1, #page[2], 2 do
      local name = string.match(page[2][i + 1], '^%d+ (.*)$')
      if page[2][i] ~= '' and name and #found < 2 * LISTED then
        found[#found + 1] = page[2][i]
        found[#found + 1] = name
      end
    end
  until cursor == '0' or #found >= 2 * LISTED
  return found
end

-- Renews the lease and does what the call says. Whether the node's registration is good for that.
local function register(roll, args, now)
  local node, lease, base, step = args[2], tonumber(args[3]), count(args[4]), count(args[5])
  local own, replid = roll.own, server_replid(now)
  if own and own.step > step then
    return true -- a later call was here already, and nobody waits for this one
  end
  local is_known = own and own.replid == replid and (not base or base <= own.step)
  local since = is_known and own.expires > now and own.since or now
  if base and not is_known then
    if own then -- it will be said again; until then the others leave it alone
      own.expires, own.since = now + lease, since
    end
  else
    for i = 10, #args, 2 do
      if args[i] ~= '' and args[i + 1] ~= '' then
        come(roll, args[i], args[i + 1], args[5])
      else
        go(roll, roll.mine, args[i])
      end
    end
    if count(args[6]) then
      purge(roll, count(args[6]))
    end
    if now - since >= lease / 2 and not sweep(roll, node, now) then
      begin_roll(roll)
      return false
    end
    own = { expires = now + lease, since = since, step = step, replid = replid }
  end
  if own and redis.call('HLEN', roll.mine) > 1 then
    redis.call('HSET', roll.nodes, node,
      table.concat({ whole(own.expires), whole(own.since), whole(own.step), own.replid }, ' '))
  else
    redis.call('UNLINK', roll.mine)
    redis.call('HDEL', roll.nodes, node)
  end
  return not base or is_known
end

-- members MEMBERS NODES MINE | CHANNEL NODE LEASE_MS BASE STEP PURGE FRESH SEEN LIST [USER NAME …] (no name: it is not there)
--   -> kept|unfinished|lost VERSION COUNT [[USER NAME …]]
local function members(keys, args)
  local now = now_ms()
  local roll = { members = keys[1], nodes = keys[2], mine = keys[3], fresh = args[7] }
  open_roll(roll, args[2], args[4] == '', now, tonumber(args[3]))
  local is_kept = register(roll, args, now)

  local total = redis.call('HLEN', roll.members) - 1
  local version = redis.call('HGET', roll.nodes, '@')
  if roll.changed or not version then
    version = roll.fresh
    redis.call('HSET', roll.nodes, '@', version)
    redis.call(PUBLISH, args[1], FORMAT .. ' @ ' .. version)
  end
  if total == 0 then
    redis.call('UNLINK', roll.members, roll.nodes, roll.mine)
  else
    for _, key in ipairs(keys) do
      redis.call('PEXPIRE', key, whole(tonumber(args[3]) + OUTLIVE))
    end
  end
  local answer = { is_kept and (roll.unfinished and 'unfinished' or 'kept') or 'lost', version, total }
  if args[9] == '1' or (version ~= args[8] and total <= LISTED) then
    answer[4] = list(roll, total)
  end
  return answer
end

-- announce MEMBERS NODES MINE | CHANNEL EVENT
local function announce(_, args)
  return redis.call(PUBLISH, args[1], FORMAT .. ' ~ ' .. args[2])
end

-- Neither may stop working when memory is full: who is gone must go.
redis.register_function { function_name = 'townhall_1_members', callback = members, flags = { 'allow-oom' } }
redis.register_function { function_name = 'townhall_1_announce', callback = announce, flags = { 'allow-oom' } }
