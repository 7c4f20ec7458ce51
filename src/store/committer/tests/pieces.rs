//! Rows that insert, replace and change, in both ways of committing.

use super::*;
use crate::store::{
    EventNid, RoomNid, committer::insert_rows, events::EventJsonColumns, log::Touch, room_heads::RoomHeadColumns,
};

/// The name, the topic and the last position of each room, in the order of the rooms.
type Heads = Vec<(Option<String>, Option<String>, i64)>;

impl Opened {
    /// Queues a write of rows of room 1.
    fn change(&self, rows: Vec<Row>) -> Committed {
        let touch = Touch::Event { room: RoomNid(1), event: EventNid(1), sub: 0, flags: 0 };
        let write = Write::new(rows).touching(touch);
        self.db.committer().submit::<Error>(1, |_| Ok(write)).expect("there is room in the queue")
    }

    async fn heads(&self) -> Heads {
        let mut reader = self.db.read().await.expect("it is open");
        let text = "SELECT name, topic, last_pos FROM room_head ORDER BY room_nid";
        on!(&mut reader.conn(), db => sqlx::query_as(text).fetch_all(&mut **db).await).expect("it can be read")
    }

    async fn jsons(&self) -> Vec<(String,)> {
        let mut reader = self.db.read().await.expect("it is open");
        let text = "SELECT json FROM event_json ORDER BY event_nid";
        on!(&mut reader.conn(), db => sqlx::query_as(text).fetch_all(&mut **db).await).expect("it can be read")
    }
}

fn head(room: i64, last_pos: i64, name: Option<&str>, topic: Option<&str>) -> Row {
    RoomHeadColumns {
        room_nid: RoomNid(room),
        last_pos: Position(last_pos),
        depth: 0,
        extremities: Vec::new(),
        state_pos: Position(last_pos),
        state_hash: Vec::new(),
        jumps: None,
        our_pos: Position(last_pos),
        reject_epoch: 0,
        bump_pos: Position(last_pos),
        joined: 0,
        invited: 0,
        name: name.map(Into::into),
        topic: topic.map(Into::into),
        avatar: None,
        alias: None,
        encryption: None,
        room_type: None,
        join_rule: None,
        history: None,
        guests: None,
        federates: None,
        heroes: None,
    }
    .row()
}

fn json(event: i64, json: &str) -> Row {
    EventJsonColumns { event_nid: EventNid(event), json: json.into() }.row()
}

/// A transaction that writes rows of room 1, one statement after another.
struct StepByStep(Vec<Row>);

impl Transaction for StepByStep {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        conn.touch(Touch::Event { room: RoomNid(1), event: EventNid(1), sub: 0, flags: 0 });
        insert_rows(conn, &self.0).await
    }
}

#[tokio::test]
async fn a_change_of_some_columns_leaves_the_others_as_they_are() {
    for opened in Opened::both().await {
        // Two new rooms, one of which is changed in the batch that makes it.
        let batch = [
            vec![head(1, 1, Some("tea"), None).of_new_key(), head(2, 1, None, Some("cups")).of_new_key()],
            vec![head(2, 2, Some("pots"), None)],
        ]
        .map(|rows| opened.change(rows));
        for committed in batch {
            committed.wait().await.expect("nothing is wrong with it");
        }
        let is = async |expected: [(&str, Option<&str>, i64); 2]| {
            let owned = expected.map(|(name, topic, pos)| (Some(name.to_owned()), topic.map(str::to_owned), pos));
            assert_eq!(opened.heads().await, owned);
        };
        is([("tea", None, 1), ("pots", Some("cups"), 2)]).await;
        opened.change(vec![head(1, 3, None, Some("leaves"))]).wait().await.expect("nothing is wrong with it");
        is([("tea", Some("leaves"), 3), ("pots", Some("cups"), 2)]).await;
        let both = vec![head(1, 4, Some("a"), None), head(2, 4, None, Some("b"))];
        opened.change(both).wait().await.expect("nothing is wrong with it");
        is([("a", Some("leaves"), 4), ("pots", Some("b"), 4)]).await;
        // Neither a name nor a topic.
        opened.change(vec![head(2, 5, None, None)]).wait().await.expect("nothing is wrong with it");
        is([("a", Some("leaves"), 4), ("pots", Some("b"), 5)]).await;
        let steps = StepByStep(vec![head(1, 6, None, Some("c")), head(2, 6, Some("d"), None)]);
        opened.db.committer().transact(steps).await.expect("nothing is wrong with it");
        is([("a", Some("c"), 6), ("d", Some("b"), 6)]).await;
    }
}

#[tokio::test]
async fn a_row_of_a_new_key_may_be_replaced_in_its_batch_beside_older_ones() {
    for opened in Opened::both().await {
        opened.change(vec![json(1, "1").of_new_key()]).wait().await.expect("nothing is wrong with it");
        // An event, its redaction, and that of an older one.
        let batch = [vec![json(2, "2").of_new_key()], vec![json(2, "{}"), json(3, "3").of_new_key(), json(1, "{}")]]
            .map(|rows| opened.change(rows));
        for committed in batch {
            committed.wait().await.expect("nothing is wrong with it");
        }
        let jsons = opened.jsons().await.into_iter().map(|(json,)| json).collect::<Vec<_>>();
        assert_eq!(jsons, ["{}", "{}", "3"]);
    }
}

#[tokio::test]
async fn a_key_that_is_not_new_fails_alone() {
    for opened in Opened::both().await {
        opened.change(vec![json(1, "1").of_new_key()]).wait().await.expect("nothing is wrong with it");
        let batch = [json(2, "2"), json(1, "other"), json(3, "3")].map(|row| opened.change(vec![row.of_new_key()]));
        let mut stored = Vec::new();
        for committed in batch {
            stored.push(committed.wait().await.is_ok());
        }
        assert_eq!(stored, [true, false, true]);
        let jsons = opened.jsons().await.into_iter().map(|(json,)| json).collect::<Vec<_>>();
        assert_eq!(jsons, ["1", "2", "3"]);
    }
}
