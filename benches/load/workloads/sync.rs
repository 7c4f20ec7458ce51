//! `/sync` answers: one without news, and the first one of an account.

use std::{rc::Rc, time::Duration};

use serde::{Deserialize, de::IgnoredAny};

use crate::{
    Result,
    bench::Bench,
    client::Client,
    report::{Goal, Row},
};

pub async fn no_op(bench: &mut Bench) -> Result<Vec<Row>> {
    let accounts = bench.accounts(8).await?;
    bench.rooms(&accounts, 40).await?;
    let mut clients = Vec::new();
    for mut client in bench.clients(&accounts, accounts.len()).await? {
        let since: Rc<str> = client.current_token().await?.into();
        clients.push((client, since));
    }
    let sync = async |(client, since): &mut (Client, Rc<str>), _| {
        client.sync(Some(since), Duration::ZERO).await?;
        Ok(())
    };
    let cost = bench.measure(clients, bench.amount(40_000), sync).await?;
    let goals = vec![
        Goal::at_most("server CPU µs/sync", cost.server_cpu_us, 100.0).peers(2_200.0, 3_800.0, 260.0),
        Goal::at_most("statements/sync", cost.statements, 0.0),
        Goal::shown("syncs/s", cost.per_second).peers(473.0, 300.0, 5_973.0),
        Goal::shown("p50 ms", cost.p50_ms).peers(16.0, 26.0, 1.2),
    ];
    Ok(vec![Row::new("c=8, accounts in 40 rooms", goals).cost(cost)])
}

pub async fn initial(bench: &mut Bench) -> Result<Vec<Row>> {
    let (forty, cost) = initial_in(bench, 40, "account in 40 rooms").await?;
    let goals = vec![
        Goal::at_most("p50 ms", cost.p50_ms, 8.0).peers(161.0, 322.0, 24.0),
        Goal::shown("p99 ms", cost.p99_ms).peers(210.0, 447.0, 41.0),
    ];
    let forty = Row { goals, ..forty }.cost(cost);

    let (hundred, cost) = initial_in(bench, 100, "account in 100 rooms").await?;
    let goals = vec![Goal::at_most("p50 ms", cost.p50_ms, 25.0), Goal::shown("p99 ms", cost.p99_ms)];
    Ok(vec![forty, Row { goals, ..hundred }.cost(cost)])
}

/// Measures an initial sync by one client: rooms of two members with 20 messages each.
async fn initial_in(bench: &mut Bench, rooms: usize, case: &'static str) -> Result<(Row, crate::meter::Cost)> {
    let accounts = bench.accounts(2).await?;
    let made = bench.rooms(&accounts, rooms).await?;
    bench.fill(&accounts[1], &made, bench.scaled(20)).await?;
    let mut client = Client::open(bench.subject.address, &accounts[0]).await?;
    let body = client.sync(None, Duration::ZERO).await?;
    let (size, synced) = (body.len(), serde_json::from_slice::<Synced>(body)?.rooms.join.len());
    if synced != rooms {
        return Err(format!("the first sync of an account in {rooms} rooms has {synced}").into());
    }
    let sync = async |client: &mut Client, _| {
        client.sync(None, Duration::ZERO).await?;
        Ok(())
    };
    let cost = bench.measure(vec![client], bench.amount(500), sync).await?;
    Ok((Row::new(case, Vec::new()).note(format!("each answer had {size} bytes")), cost))
}

#[derive(Deserialize)]
struct Synced {
    rooms: Rooms,
}

#[derive(Deserialize)]
struct Rooms {
    join: std::collections::HashMap<String, IgnoredAny>,
}
