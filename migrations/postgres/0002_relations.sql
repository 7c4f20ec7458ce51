-- The events that relate to an event, for GET /rooms/{roomId}/relations. Only events that relate to another have a row.
-- Events that were stored before this migration have none, so their relations are not listed.

-- table: relation | owner: room | ends: when the room is purged
-- `parent_id` is an event ID, because the event need not be known; `rel_type` as in `m.relates_to`. `annotation` is a
-- digest of the parts that make two annotations equal: the event, its sender, its type and its key.
CREATE TABLE relation (
    room_nid BIGINT NOT NULL,
    parent_id TEXT NOT NULL,
    pos BIGINT NOT NULL,
    event_nid BIGINT NOT NULL,
    rel_type TEXT NOT NULL,
    annotation BYTEA,
    PRIMARY KEY (room_nid, parent_id, pos)
);
CREATE INDEX relation_annotation ON relation (annotation, pos) WHERE annotation IS NOT NULL;
