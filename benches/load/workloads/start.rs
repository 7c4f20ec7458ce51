//! Starting: on a new database, and on a full one.

use std::time::Duration;

use crate::{
    Result,
    bench::Bench,
    report::{Goal, Row},
};

const LONG_RUN: usize = 1_000_000;

pub async fn empty(bench: &mut Bench) -> Result<Vec<Row>> {
    // Gives the server time for the background work of a start.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let started_ms = bench.subject.started_in().map(|started_in| started_in.as_secs_f64() * 1e3);
    let goals = vec![
        Goal::at_most("RSS MB", bench.subject.resident_mb()?, 25.0).peers(130.0, 130.0, 55.6),
        Goal::shown("start on a new database, ms", started_ms).peers(1_600.0, 1_850.0, 259.0),
    ];
    let row = Row::new("no accounts, no rooms", goals);
    let registered = bench.has_accounts();
    Ok(vec![if registered { row.note("not empty: it had been used before") } else { row }])
}

pub async fn cold(bench: &mut Bench) -> Result<Vec<Row>> {
    if bench.long && bench.messages_sent < LONG_RUN {
        let missing = LONG_RUN - bench.messages_sent;
        let members = bench.accounts(1).await?;
        let rooms = bench.rooms(&members, 50).await?;
        bench.fill(&members[0], &rooms, missing.div_ceil(rooms.len())).await?;
    }
    let Some(started_in) = bench.subject.restart().await? else {
        let row = Row::new("start on this database", Vec::new());
        return Ok(vec![row.note("not measured: the server is not ours to restart")]);
    };
    let goals = vec![
        Goal::at_most("s to the first answer", started_in.as_secs_f64(), 0.3),
        Goal::shown("RSS MB", bench.subject.resident_mb()?),
    ];
    let mut row = Row::new("start on this database", goals).note(format!("with {} messages", bench.messages_sent));
    if !bench.long {
        row = row.note("with the messages at hand; --long fills up to a million, which the target means");
    }
    Ok(vec![row])
}
