//! Memory used by clients that only wait.

use std::{cell::RefCell, rc::Rc, time::Duration};

use crate::{
    Result,
    bench::Bench,
    client::{Client, next_batch},
    drive::{Amount, drive},
    process,
    report::{Goal, Row},
};

const CONNECTIONS: usize = 5_000;
const ACCOUNTS: usize = 1_000;
const LONG_POLL: Duration = Duration::from_secs(110);
/// Longer than the interval at which the server looks at its memory.
const MEMORY_GOES_BACK: Duration = Duration::from_secs(12);

pub async fn long_polls(bench: &mut Bench) -> Result<Vec<Row>> {
    let crowd = bench.crowd(bench.scaled(ACCOUNTS)).await?;
    let tokens = current_tokens(bench, &crowd).await?;
    // Thousands of connections would fit for free into the memory that earlier workloads left behind.
    let restarted = bench.subject.restart().await?.is_some();
    let mut first = Client::open(bench.subject.address, &crowd[0]).await?;
    first.sync(Some(&tokens[0]), Duration::ZERO).await?;
    let before_mb = bench.subject.resident_mb()?;

    let mut parked = bench.clients(&crowd, bench.scaled(CONNECTIONS)).await?;
    for (client, token) in parked.iter_mut().zip(tokens.iter().cycle()) {
        client.park(Some(token), LONG_POLL).await?;
    }
    settle(bench).await?;
    // A restart may be news to some clients (presence), and so may the last actions of the accounts: these poll again.
    let mut answered = repark(&mut parked).await?;
    for _ in 0..5 {
        settle(bench).await?;
        if answered == 0 {
            break;
        }
        answered = repark(&mut parked).await?;
    }
    if answered > 0 {
        return Err(format!("{answered} of {} long polls were answered instead of parked", parked.len()).into());
    }
    // The many requests needed memory for a moment. The server returns it to the system at its next look.
    tokio::time::sleep(MEMORY_GOES_BACK).await;
    let after_mb = bench.subject.resident_mb()?;
    let each_kb = after_mb.zip(before_mb).map(|(after, before)| (after - before) * 1000.0 / parked.len() as f64);
    let goals = vec![
        Goal::at_most("server kB each", each_kb, 12.0).peers(1.2, 28.2, 85.0),
        Goal::shown("RSS MB with all", after_mb),
    ];
    let held = format!("{} long polls of {} accounts", parked.len(), crowd.len());
    let mut row = Row::new("idle", goals).note(held);
    if !restarted {
        row = row.note("the server was not restarted before: memory that it had freed hides the cost");
    }
    Ok(vec![row])
}

/// Returns the sync token of each account, in the order of `crowd`.
async fn current_tokens(bench: &Bench, crowd: &[Rc<crate::client::Account>]) -> Result<Vec<String>> {
    let tokens = Rc::new(RefCell::new(vec![String::new(); crowd.len()]));
    let (found, accounts) = (tokens.clone(), crowd.to_vec());
    let all = Amount { operations: crowd.len(), within: Duration::from_secs(600) };
    drive(bench.clients(crowd, 8).await?, all, async move |client: &mut Client, number| {
        client.account = accounts[number].clone();
        let token = client.current_token().await?;
        found.borrow_mut()[number] = token;
        Ok(())
    })
    .await?;
    Ok(tokens.take())
}

/// Parks the clients that have an answer again, and returns how many there were.
async fn repark(clients: &mut [Client]) -> Result<usize> {
    let mut answered = 0;
    for client in clients {
        if client.connection.has_input().await {
            let since = next_batch(client.synced().await?)?;
            client.park(Some(&since), LONG_POLL).await?;
            answered += 1;
        }
    }
    Ok(answered)
}

/// Waits until the server has nothing left to do, for at most half a minute.
async fn settle(bench: &Bench) -> Result<()> {
    let Some(pid) = bench.subject.server_pid() else {
        tokio::time::sleep(Duration::from_secs(5)).await;
        return Ok(());
    };
    let mut used = process::cpu_time(&[pid])?;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = process::cpu_time(&[pid])?;
        // One tick is the noise of an idle server with timers.
        if now - used <= Duration::from_millis(10) {
            break;
        }
        used = now;
    }
    Ok(())
}
