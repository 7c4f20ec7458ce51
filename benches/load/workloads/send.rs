//! Sending messages: one, eight or 128 at a time.

use crate::{
    Result,
    bench::Bench,
    client::Client,
    disk::{self, LogFile},
    meter::Cost,
    report::{Goal, Row},
};

struct Shape {
    rooms: usize,
    members: usize,
    concurrency: usize,
    messages: usize,
}

pub async fn alone(bench: &mut Bench) -> Result<Vec<Row>> {
    let folder = bench.subject.folder();
    let before = disk::sync_times(&folder, LogFile::Reused)?;
    let cost = send(bench, Shape { rooms: 1, members: 4, concurrency: 1, messages: 3_000 }).await?;
    // The speed of a cloud disk changes; with a single measurement the ratio would depend on chance.
    let after = disk::sync_times(&folder, LogFile::Reused)?;
    let sync_ms = f64::midpoint(before.percentile_ms(50.0), after.percentile_ms(50.0));
    let growing_ms = disk::sync_times(&folder, LogFile::Growing)?.percentile_ms(50.0);
    let goals = vec![
        Goal::at_most("p50 / one fdatasync", cost.p50_ms / sync_ms, 1.3),
        Goal::shown("p50 ms", cost.p50_ms),
        Goal::shown("fdatasync p50 ms", sync_ms),
        Goal::shown("same, growing file", growing_ms),
    ];
    Ok(vec![Row::new("c=1", goals).cost(cost)])
}

pub async fn eight(bench: &mut Bench) -> Result<Vec<Row>> {
    let cost = send(bench, Shape { rooms: 4, members: 4, concurrency: 8, messages: 20_000 }).await?;
    let goals = vec![
        Goal::at_most("p50 ms", cost.p50_ms, 1.5).peers(175.0, 203.0, 5.1),
        Goal::shown("p99 ms", cost.p99_ms).peers(222.0, 325.0, 11.6),
        Goal::shown("events/s", cost.per_second).peers(45.0, 38.0, 1546.0),
        Goal::shown("server CPU µs/event", cost.server_cpu_us).peers(22_000.0, 38_000.0, 1150.0),
    ];
    Ok(vec![Row::new("c=8, 4 rooms x 4", goals).cost(cost)])
}

pub async fn thirty_two(bench: &mut Bench) -> Result<Vec<Row>> {
    let cost = send(bench, Shape { rooms: 16, members: 16, concurrency: 32, messages: 30_000 }).await?;
    let goals = vec![
        Goal::shown("events/s", cost.per_second).tuwunel(700.0),
        Goal::shown("p50 ms", cost.p50_ms).tuwunel(37.0),
        Goal::shown("p99 ms", cost.p99_ms).tuwunel(156.0),
    ];
    Ok(vec![Row::new("c=32, 16 rooms x 16", goals).cost(cost)])
}

pub async fn fifty_rooms(bench: &mut Bench) -> Result<Vec<Row>> {
    let cost = send(bench, Shape { rooms: 50, members: 4, concurrency: 128, messages: 60_000 }).await?;
    let goals = vec![Goal::at_least("events/s", cost.per_second, 5_000.0)];
    Ok(vec![Row::new("c=128, 50 rooms x 4", goals).cost(cost)])
}

pub async fn one_room(bench: &mut Bench) -> Result<Vec<Row>> {
    let cost = send(bench, Shape { rooms: 1, members: 4, concurrency: 128, messages: 40_000 }).await?;
    let goals = vec![Goal::at_least("events/s", cost.per_second, 4_000.0)];
    Ok(vec![Row::new("c=128, 1 room x 4", goals).cost(cost)])
}

async fn send(bench: &mut Bench, shape: Shape) -> Result<Cost> {
    let members = bench.accounts(shape.members).await?;
    let rooms = bench.rooms(&members, shape.rooms).await?;
    // Fills the rooms first, so that they are in memory, as on a server at work.
    bench.fill(&members[0], &rooms, 10).await?;
    let amount = bench.amount(shape.messages);
    let first = bench.numbers(amount.operations);
    let senders = bench.clients(&members, shape.concurrency).await?;
    let send =
        async move |sender: &mut Client, number: usize| sender.send(&rooms[number % rooms.len()], first + number).await;
    let cost = bench.measure(senders, amount, send).await?;
    bench.messages_sent += cost.operations;
    Ok(cost)
}
