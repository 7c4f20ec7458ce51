//! The state that workloads share: the server under test, its accounts and rooms, and the size of the run.

use std::{cell::RefCell, rc::Rc, time::Duration};

use crate::{
    Result,
    client::{Account, Client, Room},
    drive::{Amount, Durations, drive},
    http::Connection,
    meter::{Cost, Meter},
    subject::Subject,
};

/// Requests in flight while a workload prepares.
const PREPARING: usize = 8;
const NO_LIMIT: Duration = Duration::from_secs(3600);

pub struct Bench {
    pub subject: Subject,
    pub quick: bool,
    pub long: bool,
    /// Messages sent by the workloads that count them; the database holds at least this many.
    pub messages_sent: usize,
    next_number: usize,
    /// Prefix that keeps the names of this run apart from those of an earlier run on the same server.
    name_prefix: String,
    registered: usize,
    crowd: Vec<Rc<Account>>,
}

impl Bench {
    pub fn new(subject: Subject, quick: bool, long: bool, started_at_unix_s: u64) -> Self {
        let name_prefix = format!("b{started_at_unix_s:x}");
        Self { subject, quick, long, messages_sent: 0, next_number: 0, name_prefix, registered: 0, crowd: Vec::new() }
    }

    /// Returns whether earlier workloads have used the server.
    pub fn has_accounts(&self) -> bool {
        self.registered > 0
    }

    /// Returns `full`, or a tenth of it in a quick run.
    pub fn scaled(&self, full: usize) -> usize {
        if self.quick { (full / 10).max(2) } else { full }
    }

    /// A load of `full` operations with a time limit, so that a slow server need not finish it.
    pub fn amount(&self, full: usize) -> Amount {
        Amount { operations: self.scaled(full), within: Duration::from_secs(if self.quick { 5 } else { 20 }) }
    }

    /// Reserves `count` message numbers that are unused in this run, and returns the first.
    pub fn numbers(&mut self, count: usize) -> usize {
        let first = self.next_number;
        self.next_number += count;
        first
    }

    /// New accounts, in no room.
    pub async fn accounts(&mut self, count: usize) -> Result<Vec<Rc<Account>>> {
        let mut connections = Vec::new();
        for _ in 0..PREPARING.min(count) {
            connections.push(Connection::open(self.subject.address).await?);
        }
        let registered = Rc::new(RefCell::new(Vec::new()));
        let (accounts, prefix, first) = (registered.clone(), self.name_prefix.clone(), self.registered);
        self.registered += count;
        let all = Amount { operations: count, within: NO_LIMIT };
        drive(connections, all, async move |connection: &mut Connection, number| {
            let account = Account::register(connection, &format!("{prefix}n{}", first + number)).await?;
            accounts.borrow_mut().push(Rc::new(account));
            Ok(())
        })
        .await?;
        Ok(registered.take())
    }

    /// Accounts for workloads that need many and may share them. They are registered only once, because hashing
    /// passwords is slow on purpose.
    pub async fn crowd(&mut self, count: usize) -> Result<Vec<Rc<Account>>> {
        let missing = count.saturating_sub(self.crowd.len());
        let new = self.accounts(missing).await?;
        self.crowd.extend(new);
        Ok(self.crowd[..count].to_vec())
    }

    /// Opens `count` connections, shared out among `accounts` in turn.
    pub async fn clients(&self, accounts: &[Rc<Account>], count: usize) -> Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        for account in accounts.iter().cycle().take(count) {
            clients.push(Client::open(self.subject.address, account).await?);
        }
        Ok(clients)
    }

    /// New rooms, each created by the first of `members` and joined by the others.
    pub async fn rooms(&self, members: &[Rc<Account>], count: usize) -> Result<Vec<Room>> {
        let made = Rc::new(RefCell::new(Vec::new()));
        let rooms = made.clone();
        let makers = self.clients(&members[..1], PREPARING.min(count)).await?;
        self.prepare(makers, count, async move |client: &mut Client, _| {
            let room = client.create_public_room().await?;
            rooms.borrow_mut().push(room);
            Ok(())
        })
        .await?;
        let rooms = made.take();
        for room in &rooms {
            self.join_all(room, &members[1..]).await?;
        }
        Ok(rooms)
    }

    pub async fn join_all(&self, room: &Room, accounts: &[Rc<Account>]) -> Result<()> {
        let clients = self.clients(accounts, PREPARING.min(accounts.len())).await?;
        let (room, accounts) = (room.clone(), accounts.to_vec());
        let count = accounts.len();
        self.prepare(clients, count, async move |client: &mut Client, number| {
            client.account = accounts[number].clone();
            client.join(&room).await
        })
        .await
    }

    /// Sends `count` messages to each of `rooms` as `account`, unmeasured.
    pub async fn fill(&mut self, account: &Rc<Account>, rooms: &[Room], count: usize) -> Result<()> {
        let total = rooms.len() * count;
        let first = self.numbers(total);
        let clients = self.clients(std::slice::from_ref(account), 64.min(total)).await?;
        let rooms = rooms.to_vec();
        self.messages_sent += total;
        self.prepare(clients, total, async move |client: &mut Client, number| {
            client.send(&rooms[number % rooms.len()], first + number).await
        })
        .await
    }

    /// Runs `operation` on each of `workers` and returns what it cost.
    pub async fn measure<W: 'static>(
        &self,
        workers: Vec<W>,
        amount: Amount,
        operation: impl AsyncFn(&mut W, usize) -> Result<()> + 'static,
    ) -> Result<Cost> {
        let meter = Meter::start(&self.subject).await?;
        let (durations, _) = drive(workers, amount, operation).await?;
        meter.stop(&self.subject, &durations).await
    }

    /// Starts measuring operations that the caller runs itself; [`Self::finish`] ends it.
    pub async fn meter(&self) -> Result<Meter> {
        Meter::start(&self.subject).await
    }

    pub async fn finish(&self, meter: Meter, durations_us: Vec<u32>) -> Result<Cost> {
        meter.stop(&self.subject, &Durations::new(durations_us)).await
    }

    async fn prepare<W: 'static>(
        &self,
        workers: Vec<W>,
        count: usize,
        operation: impl AsyncFn(&mut W, usize) -> Result<()> + 'static,
    ) -> Result<()> {
        drive(workers, Amount { operations: count, within: NO_LIMIT }, operation).await?;
        Ok(())
    }
}
