//! Rows of one message, which must not depend on how many local members the room has.

use crate::{
    Result,
    bench::Bench,
    client::Client,
    report::{Goal, Row},
};

/// Ids are reserved in blocks and heads are written once a batch, so equal work may differ a little.
const TOLERANCE: f64 = 1.02;

pub async fn rows_per_message(bench: &mut Bench) -> Result<Vec<Row>> {
    let owner = bench.accounts(1).await?;
    let room = bench.rooms(&owner, 1).await?.remove(0);
    let crowd = bench.crowd(bench.scaled(1_000)).await?;
    let (mut rows, mut joined, mut rows_with_two) = (Vec::new(), 0, None);
    let cases = [
        (2, "2 local members"),
        (bench.scaled(100), "100 local members"),
        (bench.scaled(1_000), "1,000 local members"),
    ];
    for (members, case) in cases {
        bench.join_all(&room, &crowd[joined..members - 1]).await?;
        joined = members - 1;

        // Sent one at a time: otherwise chance decides how many messages share the rows of a batch.
        let amount = bench.amount(500);
        let first = bench.numbers(amount.operations);
        let (senders, room) = (bench.clients(&owner, 1).await?, room.clone());
        let send = async move |sender: &mut Client, number: usize| sender.send(&room, first + number).await;
        let cost = bench.measure(senders, amount, send).await?;

        let written = match rows_with_two {
            Some(bound) => Goal::at_most("rows/message", cost.rows, bound),
            None => Goal::shown("rows/message", cost.rows),
        };
        rows_with_two = rows_with_two.or(cost.rows.map(|rows| rows * TOLERANCE));
        let row = Row::new(case, vec![written, Goal::shown("statements/message", cost.statements)]);
        rows.push(
            if members == 2 || !bench.quick { row } else { row.note(format!("--quick: {members} members")) }.cost(cost),
        );
    }
    Ok(rows)
}
