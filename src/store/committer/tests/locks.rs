//! The order in which a batch locks rows, on PostgreSQL: the slot first. Otherwise a holder that has lost the lease and the
//! new one could wait for each other.

use super::*;
use crate::store::{committer::insert_rows, log::Touch};

/// Far longer than an insertion takes that waits for nobody.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";

/// Inserts rows with the keys of a batch, which waits for the slot: it must not hold them yet.
async fn check(batch: impl Future<Output = ()>, [slot, other]: &mut [PgConnection; 2], last: Position) {
    execute(slot, "BEGIN").await;
    execute(slot, "SELECT pos FROM writer_slot FOR UPDATE").await;
    let looking = async {
        while !is_waiting_for_a_lock(other).await {}
        execute(other, "BEGIN").await;
        execute(other, LOCK_TIMEOUT).await;
        execute(other, &format!("INSERT INTO filter (user_nid, filter_id, json) VALUES ({USER}, {}, '')", last.0))
            .await;
        execute(other, &format!("INSERT INTO commit_log (pos, touched) VALUES ({}, '')", last.0)).await;
        execute(other, "ROLLBACK").await;
        execute(slot, "ROLLBACK").await;
    };
    let both = async { tokio::join!(batch, looking) };
    tokio::time::timeout(LIMIT, both).await.expect("the batch waits for the slot, and then goes on");
}

async fn execute(conn: &mut PgConnection, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(conn).await.expect("nobody holds what it needs");
}

#[tokio::test]
async fn a_batch_that_waits_for_the_slot_holds_no_other_row() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let db = open(&database.url).await;
    let mut others = [connect(&database).await, connect(&database).await];
    let committer = db.committer();
    // In one call, and step by step.
    for is_one_call in [true, false] {
        let next = Position(committer.published().0 + 1);
        let batch = async {
            let stored = if is_one_call {
                committer.write(Write::new(vec![row(next.0)]).touching(Touch::Job)).await.map(drop)
            } else {
                committer.transact(Rows(next.0)).await
            };
            stored.expect("it is stored when the slot is free");
        };
        check(batch, &mut others, next).await;
        assert_eq!(committer.published(), next);
    }
    db.close().await;
}

async fn connect(database: &PostgresDatabase) -> PgConnection {
    PgConnection::connect(&database.url).await.expect("it is there")
}

/// Stores a row in a batch that does not fit into one call.
struct Rows(i64);

impl Transaction for Rows {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        conn.touch(Touch::Job);
        insert_rows(conn, &[row(self.0)]).await
    }
}
