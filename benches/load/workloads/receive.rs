//! Receiving: how long a message takes to reach clients that wait for it in a long poll.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::{
    Result,
    bench::Bench,
    client::{Client, has_message, next_batch},
    drive::micros,
    report::{Goal, Row},
};

const LONG_POLL: Duration = Duration::from_secs(30);

/// Pause between the request for `/sync` and the message, so that the request is parked.
const TO_PARK: Duration = Duration::from_millis(5);

pub async fn receive(bench: &mut Bench) -> Result<Vec<Row>> {
    let few = receive_in(bench, 3, "account in 3 rooms").await?;
    let many = receive_in(bench, 300, "account in 300 rooms").await?;
    Ok(vec![few, many])
}

async fn receive_in(bench: &mut Bench, rooms: usize, case: &'static str) -> Result<Row> {
    let accounts = bench.accounts(2).await?;
    bench.rooms(&accounts[..1], rooms - 1).await?;
    let shared = bench.rooms(&accounts, 1).await?;
    let mut receiver = Receiver::open(bench, &accounts[0]).await?;
    let mut sender = Client::open(bench.subject.address, &accounts[1]).await?;
    let amount = bench.amount(1_000);
    let first = bench.numbers(amount.operations);

    let meter = bench.meter().await?;
    let (mut taken_us, until) = (Vec::new(), Instant::now() + amount.within);
    for number in first..first + amount.operations {
        if Instant::now() > until {
            break;
        }
        receiver.park().await?;
        tokio::time::sleep(TO_PARK).await;
        let start = Instant::now();
        let (received_at, sent) = tokio::join!(receiver.receive(number), sender.send(&shared[0], number));
        sent?;
        taken_us.push(micros(received_at? - start));
    }
    let cost = bench.finish(meter, taken_us).await?;
    let (p50, p99) = (Goal::at_most("p50 ms", cost.p50_ms, 1.5), Goal::shown("p99 ms", cost.p99_ms));
    let goals = match rooms {
        3 => vec![p50.peers(25.5, 41.0, 2.7), p99.peers(35.0, 57.0, 5.8)],
        // The peers were measured with 90 rooms; with 300 they would be slower.
        _ => vec![p50.tuwunel(13.4), p99.tuwunel(23.9)],
    };
    Ok(Row::new(case, goals).cost(cost))
}

pub async fn fan_out(bench: &mut Bench) -> Result<Vec<Row>> {
    let accounts = bench.accounts(51).await?;
    let room = bench.rooms(&accounts, 1).await?.remove(0);
    let mut sender = Client::open(bench.subject.address, &accounts[0]).await?;
    let mut members = Vec::new();
    for account in &accounts[1..] {
        members.push(Receiver::open(bench, account).await?);
    }
    let amount = bench.amount(300);
    let first = bench.numbers(amount.operations);

    let meter = bench.meter().await?;
    let (mut taken_us, until) = (Vec::new(), Instant::now() + amount.within);
    for number in first..first + amount.operations {
        if Instant::now() > until {
            break;
        }
        let mut waiting = JoinSet::new();
        for mut member in members.drain(..) {
            member.park().await?;
            waiting.spawn_local(async move {
                let received_at = member.receive(number).await?;
                Ok::<_, Box<dyn std::error::Error>>((received_at, member))
            });
        }
        tokio::time::sleep(TO_PARK * 4).await;
        let start = Instant::now();
        sender.send(&room, number).await?;
        let mut last = start;
        while let Some(received) = waiting.join_next().await {
            let (received_at, member) = received??;
            last = last.max(received_at);
            members.push(member);
        }
        taken_us.push(micros(last - start));
    }
    let cost = bench.finish(meter, taken_us).await?;
    let goals = vec![
        Goal::at_most("last member, p50 ms", cost.p50_ms, 9.0).peers(283.0, 327.0, 27.0),
        Goal::shown("last member, p99 ms", cost.p99_ms).peers(333.0, 389.0, 36.0),
    ];
    Ok(vec![Row::new("50 parked members", goals).cost(cost)])
}

/// A client that follows `/sync`.
struct Receiver {
    client: Client,
    since: String,
}

impl Receiver {
    async fn open(bench: &Bench, account: &std::rc::Rc<crate::client::Account>) -> Result<Self> {
        let mut client = Client::open(bench.subject.address, account).await?;
        let since = client.current_token().await?;
        Ok(Self { client, since })
    }

    async fn park(&mut self) -> Result<()> {
        self.client.park(Some(&self.since), LONG_POLL).await
    }

    /// Waits for message `number`, and syncs again when something else came first.
    async fn receive(&mut self, number: usize) -> Result<Instant> {
        loop {
            let body = self.client.synced().await?;
            let received_at = Instant::now();
            let found = has_message(body, number);
            self.since = next_batch(body)?;
            if found {
                return Ok(received_at);
            }
            self.park().await?;
        }
    }
}
