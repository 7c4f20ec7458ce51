-- The first schema: one server, its accounts, rooms and keys.
--
-- Every table names its owner (the module under `src/` that writes it) and its end of life (when a row goes away);
-- a test compares these lines with the tables that exist. Positions (`pos`) come from one counter, see `writer_slot`.
-- Numbers ending in `_nid` are our own short ids; Matrix identifiers appear once, where the short id is given out.

-- table: server_info | owner: store | ends: never (a few facts about this database)
CREATE TABLE server_info (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- table: writer_slot | owner: store | ends: never (one row)
-- `pos` may only be moved by the process that holds `epoch`; NOT NULL turns a stale epoch into a failed commit. `holder` is
-- the number of that process, which may raise `epoch` to shut out a connection that it has lost; 0 is nobody. A process
-- that others follow raises `beat` while it has nothing to commit.
CREATE TABLE writer_slot (
    slot INTEGER NOT NULL PRIMARY KEY CHECK (slot = 0),
    epoch INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    holder INTEGER NOT NULL,
    beat INTEGER NOT NULL
);

-- table: commit_log | owner: store | ends: when the slowest cursor is past it; after seven days or 1 GiB in any case
-- The feed of everything that follows the commits: one row for each batch, with its last position, that names what the batch
-- has changed. A batch that touched nothing has no row. The format of `touched` is in `src/store/log.rs`.
CREATE TABLE commit_log (
    pos INTEGER NOT NULL PRIMARY KEY,
    touched BLOB NOT NULL
);

-- table: log_cursor | owner: store | ends: when its consumer is gone from the program, at the next start
-- How far each consumer of the commit log has come: everything up to `pos` is done.
CREATE TABLE log_cursor (
    consumer TEXT NOT NULL PRIMARY KEY,
    pos INTEGER NOT NULL
);

-- table: incarnation | owner: store | ends: the oldest go when a term begins, the newest 1000 stay
-- One row per term: each time that a process takes the right to write. A sync token names the term that made it, so a
-- restored backup is noticed. A server that is alone on its database has one term for each start. `after_pos` is the last
-- position of the term before.
CREATE TABLE incarnation (
    incarnation INTEGER NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    after_pos INTEGER NOT NULL,
    started_at INTEGER NOT NULL
);

-- table: counter | owner: store | ends: never (one row per kind of short id)
CREATE TABLE counter (
    name TEXT NOT NULL PRIMARY KEY,
    next INTEGER NOT NULL
);

-- table: matrix_user | owner: account | ends: never (events refer to their senders for ever)
-- `server_nid` is 0 for the users of this server.
CREATE TABLE matrix_user (
    user_nid INTEGER NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE,
    server_nid INTEGER NOT NULL
);

-- table: server | owner: remote | ends: never (a small vocabulary)
-- Other servers, from the first of their users that is stored.
CREATE TABLE server (
    server_nid INTEGER NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- table: account | owner: account | ends: never (a deactivated name must not be given out again)
CREATE TABLE account (
    user_nid INTEGER NOT NULL PRIMARY KEY,
    password_hash TEXT,
    admin BOOLEAN NOT NULL,
    created_at INTEGER NOT NULL,
    deactivated_at INTEGER
);

-- table: profile | owner: account | ends: when the field is removed or the account is deactivated
CREATE TABLE profile (
    user_nid INTEGER NOT NULL,
    field TEXT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (user_nid, field)
);

-- table: device | owner: account | ends: at logout or deletion of the device
CREATE TABLE device (
    device_nid INTEGER NOT NULL PRIMARY KEY,
    user_nid INTEGER NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT,
    created_at INTEGER NOT NULL,
    last_seen_at INTEGER,
    last_seen_ip TEXT,
    UNIQUE (user_nid, device_id)
);

-- table: access_token | owner: account | ends: at logout, when refreshed, or a day after it expired
-- `refresh_hash` is the refresh token that was given out with it: using one of the two retires the tokens before them.
CREATE TABLE access_token (
    token_hash BLOB NOT NULL PRIMARY KEY,
    user_nid INTEGER NOT NULL,
    device_nid INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    refresh_hash BLOB
);
CREATE INDEX access_token_device ON access_token (device_nid);
CREATE INDEX access_token_refresh ON access_token (refresh_hash);
CREATE INDEX access_token_expires ON access_token (expires_at) WHERE expires_at IS NOT NULL;

-- table: refresh_token | owner: account | ends: at logout, or when its successor has been used
CREATE TABLE refresh_token (
    token_hash BLOB NOT NULL PRIMARY KEY,
    user_nid INTEGER NOT NULL,
    device_nid INTEGER NOT NULL,
    next_hash BLOB,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
);
CREATE INDEX refresh_token_device ON refresh_token (device_nid);
CREATE INDEX refresh_token_next ON refresh_token (next_hash);
CREATE INDEX refresh_token_expires ON refresh_token (expires_at) WHERE expires_at IS NOT NULL;

-- table: login_token | owner: account | ends: when used, or at the next sweep after it expired
CREATE TABLE login_token (
    token_hash BLOB NOT NULL PRIMARY KEY,
    user_nid INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE INDEX login_token_user ON login_token (user_nid);
CREATE INDEX login_token_expires ON login_token (expires_at);

-- table: registration_token | owner: account | ends: when the operator revokes it
CREATE TABLE registration_token (
    token TEXT NOT NULL PRIMARY KEY,
    uses_allowed INTEGER,
    used INTEGER NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL
);

-- table: setup_secret | owner: account | ends: when used, or at the next start after it expired
CREATE TABLE setup_secret (
    secret_hash BLOB NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
);

-- table: leftover | owner: account | ends: when a sweep has deleted what it names
-- Data whose owner is gone, and that is deleted piece by piece. `kind` says what `owner` is: a device (1), a user (2),
-- or a user with a version of their key backup in `part` (3).
CREATE TABLE leftover (
    kind INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    part INTEGER NOT NULL,
    PRIMARY KEY (kind, owner, part)
);

-- table: account_data | owner: account | ends: with the account
-- `room_nid` 0 is the account's own data.
CREATE TABLE account_data (
    user_nid INTEGER NOT NULL,
    room_nid INTEGER NOT NULL,
    type TEXT NOT NULL,
    json TEXT NOT NULL,
    pos INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (user_nid, room_nid, type)
);
CREATE INDEX account_data_pos ON account_data (user_nid, pos, bytes);

-- table: filter | owner: account | ends: with the account
CREATE TABLE filter (
    user_nid INTEGER NOT NULL,
    filter_id INTEGER NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (user_nid, filter_id)
);

-- table: room | owner: room | ends: when the room is purged
CREATE TABLE room (
    room_nid INTEGER NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE,
    version TEXT NOT NULL,
    created_at INTEGER NOT NULL
);

-- table: event_type | owner: room | ends: never (a small vocabulary)
CREATE TABLE event_type (
    type_nid INTEGER NOT NULL PRIMARY KEY,
    type TEXT NOT NULL UNIQUE
);

-- table: state_key | owner: room | ends: never (a vocabulary shared by all rooms)
CREATE TABLE state_key (
    key_nid INTEGER NOT NULL PRIMARY KEY,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    UNIQUE (type, state_key)
);

-- table: event | owner: room | ends: when the room is purged
-- (`pos`, `sub`) is the place in the room's timeline; `pos` is NULL if it has none, because it is an outlier or was not
-- accepted. `state_pos` is the last change of state before it, or if `side_nid` is set, the state before it is that of a
-- branch. `flags`: see `federation/src/standing.rs`.
-- `prev` and `auth` are event_nids, eight bytes each, little endian.
CREATE TABLE event (
    event_nid INTEGER NOT NULL PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    room_nid INTEGER NOT NULL,
    type_nid INTEGER NOT NULL,
    key_nid INTEGER,
    sender_nid INTEGER NOT NULL,
    pos INTEGER,
    sub INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    auth_depth INTEGER NOT NULL,
    state_pos INTEGER NOT NULL,
    side_nid INTEGER,
    flags INTEGER NOT NULL,
    prev BLOB NOT NULL,
    auth BLOB NOT NULL
);
CREATE INDEX event_outlier ON event (room_nid) WHERE pos IS NULL;

-- table: event_json | owner: room | ends: when the room is purged; redaction replaces it with the redacted form
CREATE TABLE event_json (
    event_nid INTEGER NOT NULL PRIMARY KEY,
    json TEXT NOT NULL
);

-- table: redaction | owner: room | ends: when the room is purged
CREATE TABLE redaction (
    event_nid INTEGER NOT NULL PRIMARY KEY,
    redaction_nid INTEGER NOT NULL
);

-- table: timeline | owner: room | ends: when the room is purged
-- The line are the events with `sub` 0, by their arrival. History that was fetched into a gap comes right before the event
-- that ends the gap, with its `pos` and a negative `sub`.
CREATE TABLE timeline (
    room_nid INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    sub INTEGER NOT NULL,
    event_nid INTEGER NOT NULL,
    PRIMARY KEY (room_nid, pos, sub)
) WITHOUT ROWID;

-- table: timeline_gap | owner: room | ends: when the room is purged
-- The places right before which events are missing, or were missing until they were fetched: a client that reads across one
-- is told of a limited timeline. The next event that is fetched into the gap gets `next_sub`. `open` is set while events are
-- missing. `tried_ms` is the time of the last try to fetch some.
CREATE TABLE timeline_gap (
    room_nid INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    sub INTEGER NOT NULL,
    next_sub INTEGER NOT NULL,
    open BOOLEAN NOT NULL,
    tried_ms INTEGER NOT NULL,
    PRIMARY KEY (room_nid, pos, sub)
) WITHOUT ROWID;

-- table: edge_missing | owner: room | ends: when the room is purged
-- The events that a stored event names as previous ones and that were not known when it came. `covers` is set if it was
-- accepted, or is covered itself: the missing event never becomes a forward extremity then.
CREATE TABLE edge_missing (
    room_nid INTEGER NOT NULL,
    missing_id TEXT NOT NULL,
    child_nid INTEGER NOT NULL,
    covers BOOLEAN NOT NULL,
    PRIMARY KEY (room_nid, missing_id, child_nid)
) WITHOUT ROWID;

-- table: pending_redaction | owner: room | ends: when the room is purged
-- Redactions of events that were not known when they came. `by_power` is set if the sender's power level is enough for any
-- target. The row stays when the event comes, because the writes of a room are inserts only.
CREATE TABLE pending_redaction (
    room_nid INTEGER NOT NULL,
    target_id TEXT NOT NULL,
    redaction_nid INTEGER NOT NULL,
    by_power BOOLEAN NOT NULL,
    PRIMARY KEY (room_nid, target_id, redaction_nid)
) WITHOUT ROWID;

-- table: room_head | owner: room | ends: when the room is purged
-- `extremities` and `heroes` are event_nids and `jumps` positions, eight bytes each, little endian. `jumps` are those at
-- which a whole state replaced another, NULL if there is none. `our_pos` is the position of our newest event in the room.
-- `reject_epoch` is the number of times that verdicts about stored events changed. From `bump_pos` on it is what lists show
-- of the room; a text is NULL or empty where there is none.
CREATE TABLE room_head (
    room_nid INTEGER NOT NULL PRIMARY KEY,
    last_pos INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    extremities BLOB NOT NULL,
    state_pos INTEGER NOT NULL,
    state_hash BLOB NOT NULL,
    jumps BLOB,
    our_pos INTEGER NOT NULL,
    reject_epoch INTEGER NOT NULL,
    bump_pos INTEGER NOT NULL,
    joined INTEGER NOT NULL,
    invited INTEGER NOT NULL,
    name TEXT,
    topic TEXT,
    avatar TEXT,
    alias TEXT,
    encryption TEXT,
    room_type TEXT,
    join_rule TEXT,
    history TEXT,
    guests TEXT,
    federates INTEGER,
    heroes BLOB
);

-- table: state_log | owner: room | ends: when the room is purged
-- At `pos`, the key went from `prev_event_nid` to `event_nid`. `membership` is set for m.room.member.
CREATE TABLE state_log (
    room_nid INTEGER NOT NULL,
    key_nid INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    event_nid INTEGER,
    prev_event_nid INTEGER,
    membership INTEGER,
    PRIMARY KEY (room_nid, key_nid, pos)
) WITHOUT ROWID;
CREATE INDEX state_log_pos ON state_log (room_nid, pos);

-- table: state_checkpoint | owner: room | ends: when newer ones make it superfluous, or the room is purged
-- `changes` is the number of changes of the room's state up to `pos`. `before` is set for a jump, where a whole state replaced
-- another without a row in `state_log` for each key: it is the state before. Both states are as
-- `federation/src/state_log/checkpoint.rs` says.
CREATE TABLE state_checkpoint (
    room_nid INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    changes INTEGER NOT NULL,
    hash BLOB NOT NULL,
    blob BLOB NOT NULL,
    before BLOB,
    PRIMARY KEY (room_nid, pos)
);

-- table: state_side | owner: room | ends: when the room is purged
-- The states of branches, which `state_log` does not have. A side is its parent, or without one the log's state at
-- `base_pos`, with the changes of `delta`, whose format is in `federation/src/sides/encode.rs`. `ordinal` is its number in its
-- branch, `hash` that of its whole state.
CREATE TABLE state_side (
    side_nid INTEGER NOT NULL PRIMARY KEY,
    room_nid INTEGER NOT NULL,
    base_pos INTEGER NOT NULL,
    parent_nid INTEGER,
    ordinal INTEGER NOT NULL,
    hash BLOB NOT NULL,
    delta BLOB NOT NULL
);
CREATE INDEX state_side_hash ON state_side (room_nid, hash);

-- table: member | owner: room | ends: when the room is purged, or a forgotten membership's room is empty
-- Rows of local users only. They list the rooms of an account without reading the rooms.
CREATE TABLE member (
    user_nid INTEGER NOT NULL,
    room_nid INTEGER NOT NULL,
    membership INTEGER NOT NULL,
    event_nid INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    forgotten BOOLEAN NOT NULL,
    invite_state TEXT,
    PRIMARY KEY (user_nid, room_nid)
);
CREATE INDEX member_room ON member (room_nid);

-- table: remote_member | owner: room | ends: when the room is purged
-- The users of other servers who are joined to a room, or were: `joined` tells. The row stays when the user is out of the
-- room, because the writes of a room are inserts only.
CREATE TABLE remote_member (
    user_nid INTEGER NOT NULL,
    room_nid INTEGER NOT NULL,
    joined BOOLEAN NOT NULL,
    PRIMARY KEY (user_nid, room_nid)
) WITHOUT ROWID;

-- table: room_server | owner: room | ends: when the room is purged
-- The other servers that have, or had, joined users in a room. `joined` is their number, `changed_pos` the position of its
-- last change.
CREATE TABLE room_server (
    server_nid INTEGER NOT NULL,
    room_nid INTEGER NOT NULL,
    joined INTEGER NOT NULL,
    changed_pos INTEGER NOT NULL,
    PRIMARY KEY (server_nid, room_nid)
) WITHOUT ROWID;
CREATE INDEX room_server_room ON room_server (room_nid);

-- table: room_alias | owner: room | ends: when the alias is deleted or the room is purged
CREATE TABLE room_alias (
    alias TEXT NOT NULL PRIMARY KEY,
    room_nid INTEGER NOT NULL,
    creator_nid INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX room_alias_room ON room_alias (room_nid, alias);

-- table: room_directory | owner: room | ends: when the room is unpublished or purged
CREATE TABLE room_directory (
    room_nid INTEGER NOT NULL PRIMARY KEY,
    published_at INTEGER NOT NULL
);

-- table: txn_id | owner: room | ends: seven days after it was used
CREATE TABLE txn_id (
    device_nid INTEGER NOT NULL,
    scope TEXT NOT NULL,
    txn TEXT NOT NULL,
    event_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (device_nid, scope, txn)
);
CREATE INDEX txn_id_created ON txn_id (created_at);

-- table: receipt | owner: ephemeral | ends: replaced by the next one of its kind and thread; when the room is purged
CREATE TABLE receipt (
    room_nid INTEGER NOT NULL,
    user_nid INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    thread TEXT NOT NULL,
    event_id TEXT NOT NULL,
    ts INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    PRIMARY KEY (room_nid, user_nid, kind, thread)
);
CREATE INDEX receipt_pos ON receipt (room_nid, pos);

-- table: to_device | owner: keys | ends: when the device acknowledges a later position, or with the device
-- A message that goes to several devices has its body in `to_device_shared`, and `share` instead of `json`.
CREATE TABLE to_device (
    device_nid INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    sender_nid INTEGER NOT NULL,
    type TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    share INTEGER,
    json TEXT,
    PRIMARY KEY (device_nid, pos, seq)
);
CREATE INDEX to_device_share ON to_device (pos, share) WHERE share IS NOT NULL;

-- table: to_device_shared | owner: keys | ends: with the last message of `to_device` that names it
-- `pos` is the position of the commit that stored it, `share` its number therein.
CREATE TABLE to_device_shared (
    pos INTEGER NOT NULL,
    share INTEGER NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (pos, share)
);

-- table: device_key | owner: keys | ends: with the device
CREATE TABLE device_key (
    device_nid INTEGER NOT NULL PRIMARY KEY,
    user_nid INTEGER NOT NULL,
    json TEXT NOT NULL
);
CREATE INDEX device_key_user ON device_key (user_nid);

-- table: one_time_key | owner: keys | ends: when claimed, or with the device
-- `seq` is the order of upload, in which keys are handed out; keys with the same `digest` are the same key.
CREATE TABLE one_time_key (
    device_nid INTEGER NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    digest BLOB NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (device_nid, algorithm, key_id)
);
CREATE INDEX one_time_key_digest ON one_time_key (device_nid, digest);
CREATE INDEX one_time_key_seq ON one_time_key (device_nid, algorithm, seq);

-- table: claimed_key | owner: keys | ends: with the device
-- A digest of each key that was handed out, so that uploading it again cannot hand it out twice.
CREATE TABLE claimed_key (
    device_nid INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (device_nid, digest)
);

-- table: fallback_key | owner: keys | ends: replaced by the next one of its algorithm, or with the device
CREATE TABLE fallback_key (
    device_nid INTEGER NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    json TEXT NOT NULL,
    used BOOLEAN NOT NULL,
    PRIMARY KEY (device_nid, algorithm)
);

-- table: cross_signing_key | owner: keys | ends: replaced by the next one of its usage; with the account
CREATE TABLE cross_signing_key (
    user_nid INTEGER NOT NULL,
    usage TEXT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (user_nid, usage)
);

-- table: key_signature | owner: keys | ends: with the key that it signs
-- `key_id` is the device id or the cross-signing key that was signed.
CREATE TABLE key_signature (
    user_nid INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    signer_nid INTEGER NOT NULL,
    signer_key_id TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (user_nid, key_id, signer_nid, signer_key_id)
);
CREATE INDEX key_signature_signer ON key_signature (signer_nid, signer_key_id);

-- table: device_change | owner: keys | ends: replaced by the user's next change
CREATE TABLE device_change (
    user_nid INTEGER NOT NULL PRIMARY KEY,
    pos INTEGER NOT NULL
);
CREATE INDEX device_change_pos ON device_change (pos);

-- table: key_backup_version | owner: keys | ends: when the version is deleted, or with the account
CREATE TABLE key_backup_version (
    user_nid INTEGER NOT NULL,
    version INTEGER NOT NULL,
    algorithm TEXT NOT NULL,
    auth_data TEXT NOT NULL,
    etag INTEGER NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    deleted BOOLEAN NOT NULL,
    PRIMARY KEY (user_nid, version)
);

-- table: key_backup_session | owner: keys | ends: when it or its version is deleted, or with the account
CREATE TABLE key_backup_session (
    user_nid INTEGER NOT NULL,
    version INTEGER NOT NULL,
    room_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    first_message_index INTEGER NOT NULL,
    forwarded_count INTEGER NOT NULL,
    is_verified BOOLEAN NOT NULL,
    bytes INTEGER NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (user_nid, version, room_id, session_id)
);

-- table: server_key | owner: remote | ends: never (events that were signed with it stay)
-- The keys of other servers, each shown by its server, or by a notary that we trust. `valid_until` is the time until which
-- the server has said that it signs with the key. `expired_at` is the end of a key that it has retired.
CREATE TABLE server_key (
    server_name TEXT NOT NULL,
    key_id TEXT NOT NULL,
    public_key BLOB NOT NULL,
    valid_until INTEGER NOT NULL,
    expired_at INTEGER,
    PRIMARY KEY (server_name, key_id)
);

-- table: server_key_answer | owner: remote | ends: replaced by the server's next valid answer
-- The last answer of each server about its keys, with its signatures: as a notary, we pass it on.
CREATE TABLE server_key_answer (
    server_name TEXT NOT NULL PRIMARY KEY,
    json TEXT NOT NULL,
    valid_until INTEGER NOT NULL
);

-- table: own_key | owner: remote | ends: never (our old events are verified with it)
-- The keys that this server has signed with. The one without `expired_at` is in use; its secret is only in the key file.
CREATE TABLE own_key (
    key_id TEXT NOT NULL PRIMARY KEY,
    public_key BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expired_at INTEGER
);

-- table: job | owner: jobs | ends: when the job is done
-- Work that was promised in a commit and is done after it. `kind` is the work, `subject` the one whom it is for. A job
-- that is asked for again while it is being done gets a later `pos`, so it is not deleted.
CREATE TABLE job (
    kind TEXT NOT NULL,
    subject INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
);
CREATE INDEX job_pos ON job (pos);

-- table: relation | owner: room | ends: when the room is purged
-- The events that relate to an event, for GET /rooms/{roomId}/relations. Only events that relate to another have a row.
-- `parent_id` is an event ID, because the event need not be known; `rel_type` as in `m.relates_to`. `annotation` is a
-- digest of the parts that make two annotations equal: the event, its sender, its type and its key.
CREATE TABLE relation (
    room_nid INTEGER NOT NULL,
    parent_id TEXT NOT NULL,
    pos INTEGER NOT NULL,
    sub INTEGER NOT NULL,
    event_nid INTEGER NOT NULL,
    rel_type TEXT NOT NULL,
    annotation BLOB,
    PRIMARY KEY (room_nid, parent_id, pos, sub)
) WITHOUT ROWID;
CREATE INDEX relation_annotation ON relation (annotation, pos) WHERE annotation IS NOT NULL;

-- table: unread_tally | owner: push | ends: replaced by the next tally of the user in the room; with the account
-- Counts of unread events that took long to count, so that a restart need not count them again. `upto` is the last counted
-- position, `basis` a digest of everything else that the count depends on: with another basis, a row is not used. The
-- format of `tally` is in `src/push/unread/tally/encoding.rs`.
CREATE TABLE unread_tally (
    user_nid INTEGER NOT NULL,
    room_nid INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    basis BLOB NOT NULL,
    tally BLOB NOT NULL,
    PRIMARY KEY (user_nid, room_nid)
) WITHOUT ROWID;
