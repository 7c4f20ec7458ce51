//! A whole simulation: the room begins, users act while things go wrong, everything heals, and everything is checked.

use ruma::{
    UserId, owned_room_id,
    serde::{Base64, base64::Standard},
};
use serde_json::json;

use super::{
    bugs::Bug,
    check::{self, Violation},
    clock::BEGIN_MS,
    faults::{Faults, STORM_MS},
    net::Message,
    pull,
    rand::Rand,
    rogue::Rogue,
    server::Server,
    stage::{Counts, Room, Stage, Step},
    users::{Cast, draft, member, message, server_name},
};
use crate::{
    build::{EventDraft, EventPosition, build_and_sign},
    pdu::Pdu,
    room_version::{rules, supported_room_versions},
    signing::ServerSigner,
    state_log::StateHashKey,
};

/// The time in milliseconds after which a server repeats what was not answered.
const TICK_MS: i64 = 1_000;

/// The number of steps after which a simulation will not end by itself.
const MOST_STEPS: u64 = 100_000;

/// The most wishes of users in a storm, and the most events of the rogue.
const MOST_WISHES: i64 = 40;
const MOST_OF_ROGUE: i64 = 8;

/// How often the rogue makes more forward extremities than an event can name.
const CROWD_PERCENT: u32 = 20;

/// The number of times that each keeper speaks in the end. Once is enough, but where a server has more forward extremities
/// than an event can name.
const ROUNDS: usize = 3;

/// The choices that do not follow from the seed.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Options {
    pub bug: Option<Bug>,
    /// Prints the trace.
    pub is_loud: bool,
}

/// A simulation that ended well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Report {
    pub trace: [u8; 32],
    pub counts: Counts,
}

/// A simulation that did not.
#[derive(Debug)]
pub(super) struct Failure {
    pub violation: Violation,
    /// The last lines of the trace.
    pub trace: String,
}

struct Sim {
    stage: Stage,
    servers: Vec<Server>,
    cast: Cast,
    rogue: Rogue,
    create: Pdu,
    /// The faults of the storm.
    faults: Faults,
    /// The choices that users draw from.
    wishes: Rand,
    steps: u64,
}

/// Runs the simulation of a seed.
pub(super) fn run(seed: u64, options: Options) -> Result<Report, Failure> {
    let mut sim = Sim::new(seed, options);
    match sim.run() {
        Ok(()) => Ok(Report { trace: sim.stage.trace.hash(), counts: sim.stage.counts.clone() }),
        Err(violation) => Err(Failure { violation, trace: sim.stage.trace.end() }),
    }
}

impl Sim {
    fn new(seed: u64, options: Options) -> Self {
        let mut rand = Rand::new(seed, b"plan    ");
        let count = *rand.pick(&[2, 3, 3, 4, 5]);
        let version = rand.pick(supported_room_versions()).clone();
        let rules = rules(&version).expect("a supported version");
        let cast = Cast::new(count);
        let mut signers: Vec<ServerSigner> = (0..=count).map(|server| signer(server, rand.secret())).collect();

        let mut content = json!({ "room_version": version });
        if !rules.authorization.use_room_create_sender {
            content["creator"] = cast.keeper(0).as_str().into();
        }
        let fixed = owned_room_id!("!room:s0.test");
        let position = EventPosition {
            room_id: Some(&*fixed).filter(|_| !rules.authorization.room_create_event_id_as_room_id),
            sender: cast.keeper(0),
            prev_events: &[],
            auth_events: &[],
            depth: 1,
            origin_server_ts: BEGIN_MS,
        };
        let create = build_and_sign(&rules, &signers[0], draft("m.room.create", Some(""), &content), position);
        let create = create.expect("a create event");

        let faults = Faults::drawn(&mut rand, count);
        let room = Room { rules, room_id: create.room_id.clone() };
        let mut stage = Stage::new(seed, room, faults.healed(), signers.iter());
        stage.trace.is_loud = options.is_loud;
        let rogue = signers.pop().expect("the rogue has a key too");
        let rogue = Rogue::new(count, cast.rogue.clone(), rogue, Rand::new(seed, b"rogue   "));
        let server = |(number, signer)| {
            let secret = StateHashKey::new(&rand.secret());
            Server::new(number, signer, secret, faults.skews_ms[number], options.bug)
        };
        let servers = signers.into_iter().enumerate().map(server).collect();
        Self { stage, servers, cast, rogue, create, faults, wishes: Rand::new(seed, b"wishes  "), steps: 0 }
    }

    fn run(&mut self) -> Result<(), Violation> {
        self.begin()?;
        self.storm()?;
        self.heal()?;
        check::end(&self.servers, &mut self.stage)
    }

    /// Everybody joins, one server after the other.
    fn begin(&mut self) -> Result<(), Violation> {
        for server in 0..self.servers.len() {
            self.stage.agenda.after(TICK_MS, Step::Tick { server });
        }
        self.servers[0].decide(&mut self.stage, self.create.clone())?;
        let keeper = self.cast.keeper(0).to_owned();
        self.send(0, &keeper, member(&keeper, "join", 0))?;
        let levels = self.cast.levels(&self.stage.room.rules, &mut self.wishes);
        self.send(0, &keeper, draft("m.room.power_levels", Some(""), &levels))?;
        self.send(0, &keeper, draft("m.room.join_rules", Some(""), &json!({ "join_rule": "public" })))?;
        self.until_quiet()?;
        for server in 0..self.servers.len() {
            for user in self.cast.of(server).to_vec() {
                if user != keeper {
                    self.send(server, &user, member(&user, "join", 0))?;
                }
            }
            self.until_quiet()?;
        }
        self.rogue.join(&mut self.stage, &self.servers)?;
        self.until_quiet()?;
        if self.stage.counts.refused + self.stage.counts.rejected + self.stage.counts.soft_failed > 0 {
            return Err(Violation::new("somebody could not join"));
        }
        Ok(())
    }

    /// Users act, and things go wrong.
    fn storm(&mut self) -> Result<(), Violation> {
        self.stage.note(0, format_args!("{:?}", self.faults));
        self.stage.net.weather = self.faults.weather.clone();
        let begin_ms = self.stage.agenda.now_ms();
        for (after_ms, sides) in self.faults.partitions.clone() {
            self.stage.agenda.after(after_ms, Step::Partition(sides));
        }
        // Many wishes at once make branches.
        let mut at_ms = 0;
        for _ in 0..self.wishes.between(10..=MOST_WISHES) {
            let is_at_once = self.wishes.percent(60);
            at_ms = if is_at_once { at_ms + self.wishes.between(0..=100) } else { self.wishes.between(0..=STORM_MS) };
            let server = self.wishes.index(self.servers.len());
            self.stage.agenda.after(at_ms.min(STORM_MS), Step::Wish { server });
        }
        for _ in 0..self.wishes.between(0..=MOST_OF_ROGUE) {
            self.stage.agenda.after(self.wishes.between(0..=STORM_MS), Step::Rogue);
        }
        if self.wishes.percent(CROWD_PERCENT) {
            self.stage.agenda.after(STORM_MS, Step::Crowd);
        }
        self.stage.faults = self.faults.clone();
        while let Some(step) = self.stage.agenda.next_until(begin_ms + STORM_MS) {
            self.step(step)?;
        }
        Ok(())
    }

    /// Everything works again, and the keepers speak on what their servers have by then, until nothing is left to join.
    fn heal(&mut self) -> Result<(), Violation> {
        self.stage.note(0, format_args!("everything heals"));
        self.stage.net.heal();
        self.stage.faults = self.faults.healed();
        self.until_quiet()?;
        for _ in 0..ROUNDS {
            for server in 0..self.servers.len() {
                let keeper = self.cast.keeper(server).to_owned();
                self.send(server, &keeper, message(server))?;
                self.until_quiet()?;
            }
            if self.servers.iter().all(|server| server.memory.rows.extremities.len() == 1) {
                break;
            }
        }
        Ok(())
    }

    /// Takes steps until nothing is left to do.
    fn until_quiet(&mut self) -> Result<(), Violation> {
        while !self.is_quiet() {
            let step = self.stage.agenda.next().expect("ticks never end");
            self.step(step)?;
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        let comes_back = |step: &Step| matches!(step, Step::Tick { .. } | Step::Partition(_));
        self.servers.iter().all(Server::is_quiet) && self.stage.agenda.iter().all(comes_back)
    }

    fn step(&mut self, step: Step) -> Result<(), Violation> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(Violation::new("the servers never come to rest"));
        }
        let Self { stage, servers, .. } = self;
        match step {
            Step::Wish { server } => return self.wish(server),
            Step::Rogue => return self.rogue.act(stage, servers, &self.cast),
            Step::Crowd => return self.rogue.crowd(stage, servers),
            Step::Arrive { from, to, message } => self.arrive(from, to, message),
            Step::Judge { server, life } => {
                servers[server].of_life(life).map_or(Ok(()), |server| server.judge(stage))?
            }
            Step::Settle { server, life } => {
                servers[server].of_life(life).map_or(Ok(()), |server| server.settle(stage))?
            }
            Step::Commit { server, life } => {
                servers[server].of_life(life).map_or(Ok(()), |server| server.commit(stage))?
            }
            Step::Restart { server } => servers[server].restart(stage)?,
            Step::Tick { server } => {
                servers[server].tick(stage);
                stage.agenda.after(TICK_MS, Step::Tick { server });
            }
            Step::Partition(sides) => {
                stage.note(0, format_args!("partition {sides:?}"));
                stage.net.divide(sides);
            }
        }
        Ok(())
    }

    /// A user of a server wants something, if the server runs.
    fn wish(&mut self, server: usize) -> Result<(), Violation> {
        let sender = self.wishes.pick(self.cast.of(server)).clone();
        let known: Vec<_> =
            self.servers[server].memory.rows.events.values().map(|row| row.pdu.event_id.clone()).collect();
        let draft = self.cast.wish(&sender, &self.stage.room.rules, &known, &mut self.wishes);
        self.send(server, &sender, draft)
    }

    fn send(&mut self, server: usize, sender: &UserId, draft: EventDraft) -> Result<(), Violation> {
        let Self { stage, servers, .. } = self;
        if servers[server].is_down { Ok(()) } else { servers[server].send(stage, sender, draft) }
    }

    fn arrive(&mut self, from: usize, to: usize, message: Message) {
        let Self { stage, servers, .. } = self;
        // Nothing is said to the rogue that it would answer.
        let Some(server) = servers.get_mut(to).filter(|server| !server.is_down && stage.net.connects(from, to)) else {
            return;
        };
        match message {
            Message::Push { number, events } => server.receive(stage, from, number, &events),
            Message::Pushed { number } => server.pushes.acknowledged(from, number),
            Message::Pull { ids } => {
                let events = pull::answer(&server.disk, &ids);
                stage.send(to, from, Message::Pulled { events });
            }
            Message::Pulled { events } => server.receive_pulled(stage, from, &events),
        }
    }
}

/// The signer of a server, with a key that follows from the seed.
fn signer(server: usize, secret: [u8; 32]) -> ServerSigner {
    let secret = Base64::<Standard, _>::new(secret).encode();
    ServerSigner::from_key_file(server_name(server), &format!("ed25519 sim {secret}")).expect("a key file")
}
