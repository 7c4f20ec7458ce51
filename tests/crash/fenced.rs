//! A takeover of the database by another process: our server ends by itself, answers nothing with success, and says
//! why. It finds out with its next write, or soon without one.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::{
    Run,
    api::{segment, text},
    process::{Data, Running},
};

/// Time for the process to end.
const LIMIT: Duration = Duration::from_secs(10);

/// The start of another process does this, once PostgreSQL has ended our connection with its lock.
async fn take_over(data: &Data) {
    let mut other = PgConnection::connect(data.database_url().expect("it is on PostgreSQL")).await.expect("it answers");
    other.execute("UPDATE writer_slot SET epoch = epoch + 1, holder = 1").await.expect("it runs");
}

/// Waits for the end of the server. Returns how long that took.
fn wait_for_end(server: Running) -> Duration {
    let began = Instant::now();
    let (status, log) = server.ended_by_itself(LIMIT);
    assert!(!status.success(), "{status}: {log}");
    assert!(log.contains("another process has taken over this database"), "{log}");
    began.elapsed()
}

pub fn ends_by_itself(_: Run) -> Option<String> {
    Run::block_on(async {
        let data = Data::on_postgres().await?;
        let server = data.start();
        let token = text(&server.api.register("alice").await, "access_token").to_owned();
        let room = server.api.post("/createRoom", &token, &json!({})).await;
        take_over(&data).await;
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/1", segment(text(&room, "room_id")));
        let body = json!({ "msgtype": "m.text", "body": "lost" });
        let answer = server.api.try_any(Method::PUT, &path, &token, Some(&body)).await;
        assert!(answer.as_ref().is_none_or(|(status, _)| *status >= 500), "{answer:?}");
        Some(format!("it ended after {:.1?}", wait_for_end(server)))
    })
}

pub fn ends_without_a_write(_: Run) -> Option<String> {
    Run::block_on(async {
        let data = Data::on_postgres().await?;
        let server = data.start();
        server.api.register("alice").await;
        server.pause();
        take_over(&data).await;
        server.wake();
        Some(format!("it ended after {:.1?}", wait_for_end(server)))
    })
}
