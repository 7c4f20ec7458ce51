//! The first `/sync` of an account in a thousand rooms full of unread messages.

use std::{collections::HashMap, rc::Rc, time::Duration};

use serde::Deserialize;

use crate::{
    Result,
    bench::Bench,
    client::{Account, Client},
    drive::Amount,
    meter::Cost,
    report::{Goal, Row},
};

const ROOMS: usize = 1_000;

/// Messages in each room. `--long` has the thousand that the target means. A new count has the latest hundred events, so
/// more than these cost nothing more.
const MESSAGES: usize = 128;
const LONG_MESSAGES: usize = 1_000;

/// The target for the server's CPU of one first sync.
const TARGET_MS: f64 = 300.0;

/// Pause after which the server has stored the counts that took long.
const TO_STORE: Duration = Duration::from_secs(12);

const NO_LIMIT: Duration = Duration::from_secs(600);

pub async fn unread(bench: &mut Bench) -> Result<Vec<Row>> {
    let accounts = bench.accounts(3).await?;
    let rooms = bench.rooms(&accounts, bench.scaled(ROOMS)).await?;
    let messages = if bench.long { LONG_MESSAGES } else { bench.scaled(MESSAGES) };
    bench.fill(&accounts[0], &rooms, messages).await?;

    let shown = |cost: &Cost| Goal::shown("server CPU ms", cpu_ms(cost));
    let aimed = |cost: &Cost| Goal::at_most("server CPU ms", cpu_ms(cost), TARGET_MS);
    let first = first_sync(bench, &accounts[1], rooms.len()).await?;
    let mut rows = vec![
        Row::new("nobody has counted before", vec![shown(&first)])
            .cost(first)
            .note(format!("{} rooms with {messages} unread messages each", rooms.len())),
    ];
    let shared = first_sync(bench, &accounts[2], rooms.len()).await?;
    rows.push(Row::new("another member has counted", vec![aimed(&shared)]).cost(shared));
    let again = first_sync(bench, &accounts[1], rooms.len()).await?;
    rows.push(Row::new("the account has counted", vec![aimed(&again)]).cost(again));

    tokio::time::sleep(TO_STORE).await;
    let restarted = Row::new("after a restart", Vec::new());
    if bench.subject.restart().await?.is_none() {
        rows.push(restarted.note("not measured: the server is not ours to restart"));
        return Ok(rows);
    }
    let stored = first_sync(bench, &accounts[1], rooms.len()).await?;
    rows.push(Row { goals: vec![aimed(&stored)], ..restarted }.cost(stored));
    Ok(rows)
}

fn cpu_ms(cost: &Cost) -> Option<f64> {
    cost.server_cpu_us.map(|us| us / 1e3)
}

/// Measures one first sync, and checks that all rooms have unread messages.
async fn first_sync(bench: &Bench, account: &Rc<Account>, rooms: usize) -> Result<Cost> {
    let client = Client::open(bench.subject.address, account).await?;
    let once = Amount { operations: 1, within: NO_LIMIT };
    let sync = async move |client: &mut Client, _| {
        let synced: Synced = serde_json::from_slice(client.sync(None, Duration::ZERO).await?)?;
        let unread = synced.rooms.join.values().filter(|room| room.unread_notifications.notification_count > 0);
        let unread = unread.count();
        if unread != rooms {
            return Err(format!("{unread} of {rooms} rooms have unread messages").into());
        }
        Ok(())
    };
    bench.measure(vec![client], once, sync).await
}

#[derive(Deserialize)]
struct Synced {
    rooms: Rooms,
}

#[derive(Deserialize)]
struct Rooms {
    join: HashMap<String, Room>,
}

#[derive(Deserialize)]
struct Room {
    unread_notifications: Counts,
}

#[derive(Deserialize)]
struct Counts {
    notification_count: u64,
}
