//! Rooms: joining one, creating many, reading the state of a large one.

use std::rc::Rc;

use serde_json::json;

use crate::{
    Result,
    bench::Bench,
    client::{Account, Client},
    report::{Goal, Row},
};

pub async fn join(bench: &mut Bench) -> Result<Vec<Row>> {
    let owner = bench.accounts(1).await?;
    let room = bench.rooms(&owner, 1).await?.remove(0);
    let crowd = bench.crowd(bench.scaled(1_000)).await?;
    let amount = bench.amount(1_000);
    let clients = bench.clients(&crowd, 8).await?;
    let join = async move |client: &mut Client, number: usize| {
        client.account = Rc::<Account>::clone(&crowd[number]);
        client.join(&room).await
    };
    let cost = bench.measure(clients, amount, join).await?;
    let goals = vec![
        Goal::at_least("joins/s", cost.per_second, 600.0).peers(28.0, 16.0, 175.0),
        Goal::shown("p50 ms", cost.p50_ms).peers(273.0, 498.0, 43.0),
    ];
    Ok(vec![Row::new("c=8, 1 public room", goals).cost(cost)])
}

pub async fn create(bench: &mut Bench) -> Result<Vec<Row>> {
    let accounts = bench.accounts(4).await?;
    let amount = bench.amount(6_000);
    let clients = bench.clients(&accounts, 4).await?;
    let create = async |client: &mut Client, _| {
        client.create_room(&json!({ "preset": "private_chat", "name": "Bench" })).await?;
        Ok(())
    };
    let cost = bench.measure(clients, amount, create).await?;
    let goals = vec![
        Goal::at_least("rooms/s", cost.per_second, 600.0).peers(13.0, 7.0, 260.0),
        Goal::shown("server CPU µs/room", cost.server_cpu_us).peers(75_000.0, 195_000.0, 6_800.0),
    ];
    Ok(vec![Row::new("c=4, private, named", goals).cost(cost)])
}

/// Reads `/state` and `/members` of a room of 100.
pub async fn state(bench: &mut Bench) -> Result<Vec<Row>> {
    let members = bench.crowd(100).await?;
    let room = bench.rooms(&members, 1).await?.remove(0);
    let mut rows = Vec::new();
    for (endpoint, case, peers) in
        [("state", "GET state", [14.0, 21.0, 2.2]), ("members", "GET members", [17.0, 24.0, 2.3])]
    {
        let clients = bench.clients(&members, 4).await?;
        let path = format!("/_matrix/client/v3/rooms/{}/{endpoint}", room.path);
        let get = async move |client: &mut Client, _| {
            client.get(&path).await?;
            Ok(())
        };
        let cost = bench.measure(clients, bench.amount(10_000), get).await?;
        let [synapse_sqlite, synapse_postgres, tuwunel] = peers;
        let goal = Goal::shown("p50 ms", cost.p50_ms).peers(synapse_sqlite, synapse_postgres, tuwunel);
        rows.push(Row::new(case, vec![goal]).cost(cost));
    }
    Ok(rows)
}
