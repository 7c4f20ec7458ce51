//! Paging: a client reads a long room backwards, a hundred events at a time.

use std::time::Instant;

use serde::{Deserialize, de::IgnoredAny};

use crate::{
    Result,
    bench::Bench,
    client::{Client, Room, string_after},
    drive::{Durations, micros},
    meter::Meter,
    report::{Goal, Row},
};

const MESSAGES: usize = 10_000;

pub async fn messages(bench: &mut Bench) -> Result<Vec<Row>> {
    let owner = bench.accounts(1).await?;
    let room = bench.rooms(&owner, 1).await?.remove(0);
    let count = bench.scaled(MESSAGES);
    bench.fill(&owner[0], std::slice::from_ref(&room), count).await?;
    let mut client = Client::open(bench.subject.address, &owner[0]).await?;

    // The first pass checks the pages and counts their events; the measured passes only follow the tokens.
    let (mut events, mut from) = (0, None);
    loop {
        let page: Page = serde_json::from_slice(read_page(&mut client, &room, from.as_deref()).await?)?;
        events += page.chunk.len();
        let Some(end) = page.end else { break };
        from = Some(crate::http::percent_encode(&end));
    }
    if events < count {
        return Err(format!("paging found {events} of at least {count} events").into());
    }

    let amount = bench.amount(500_000);
    let (mut taken_us, mut read, until) = (Vec::new(), 0, Instant::now() + amount.within);
    let meter = Meter::start(&bench.subject).await?;
    while read < amount.operations && Instant::now() < until {
        let mut from = None;
        loop {
            let start = Instant::now();
            let body = read_page(&mut client, &room, from.as_deref()).await?;
            taken_us.push(micros(start.elapsed()));
            let Some(end) = string_after(body, b"\"end\":") else {
                break;
            };
            from = Some(end);
        }
        read += events;
    }
    let cost = meter.stop_counting(&bench.subject, &Durations::new(taken_us), read).await?;
    let goals = vec![
        Goal::at_least("events/s", cost.per_second, 50_000.0).peers(5_977.0, 3_600.0, 27_420.0),
        Goal::shown("page p50 ms", cost.p50_ms),
    ];
    Ok(vec![Row::new("c=1, pages of 100", goals).cost(cost)])
}

async fn read_page<'a>(client: &'a mut Client, room: &Room, from: Option<&str>) -> Result<&'a [u8]> {
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=100", room.path);
    match from {
        Some(from) => client.get(&format!("{path}&from={from}")).await,
        None => client.get(&path).await,
    }
}

#[derive(Deserialize)]
struct Page {
    chunk: Vec<IgnoredAny>,
    end: Option<String>,
}
