//! Jobs against servers that lose, refuse and delay, while the process is killed and the user changes their mind.
//!
//! A run has a list of fates, one for each request, import and resync, and the numbers of the effects before which the process
//! is killed. When the list is used up, everything works. So each run ends, and then both sides must agree.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use ruma::{OwnedEventId, ServerName};

use super::*;

/// The fate of a request, an import or a resync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Fine,
    /// It is answered after this many seconds.
    Slow(u8),
    NotSent,
    RequestLost,
    /// The server does it, and the answer is lost.
    AnswerLost,
    /// The answer is lost, and the server does it some minutes later.
    Late(u8),
    /// The server says that it is busy and does nothing.
    Busy,
    /// The server says that something went wrong, and has done it.
    Broken,
    NotFound,
    Forbidden,
    /// The process is killed before it hears the answer.
    KilledBefore,
    /// The server does it, and the process is killed before it hears the answer.
    KilledAfter,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Fine),
        1 => (1_u8..9).prop_map(Fate::Slow),
        1 => Just(Fate::NotSent),
        1 => Just(Fate::RequestLost),
        2 => Just(Fate::AnswerLost),
        1 => (1_u8..8).prop_map(Fate::Late),
        1 => Just(Fate::Busy),
        1 => Just(Fate::Broken),
        1 => Just(Fate::NotFound),
        1 => Just(Fate::Forbidden),
        1 => Just(Fate::KilledBefore),
        1 => Just(Fate::KilledAfter),
    ]
}

/// The room as the other servers have it. They tell each other everything at once.
struct Others {
    kind: TemplateKind,
    /// Whether only the answering server can sign a join.
    is_restricted: bool,
    is_in: bool,
    known: BTreeSet<OwnedEventId>,
    templates: u8,
}

impl Others {
    fn template(&mut self, server: &ServerName, wanted: TemplateKind) -> Result<Template, AskError> {
        if wanted == TemplateKind::Leave && !self.is_in {
            return Err(refused(403, "M_FORBIDDEN"));
        }
        self.templates = self.templates.wrapping_add(1);
        let authoriser = OwnedUserId::try_from(format!("@mod:{server}")).unwrap();
        let is_restricted = self.is_restricted && wanted == TemplateKind::Join;
        Ok(template(self.templates, Some(authoriser).filter(|_| is_restricted)))
    }

    fn take(&mut self, server: &ServerName, event: &Pdu) -> Result<(), AskError> {
        if self.known.contains(&event.event_id) {
            return Ok(());
        }
        let content: BTreeMap<String, String> = serde_json::from_str(event.content.get()).unwrap();
        let authoriser = content.get("join_authorised_via_users_server");
        if authoriser.is_some_and(|user| *user != format!("@mod:{server}")) {
            return Err(refused(400, "M_UNABLE_TO_GRANT_JOIN"));
        }
        match content["membership"].as_str() {
            "leave" if !self.is_in => return Err(refused(403, "M_FORBIDDEN")),
            membership => self.is_in = membership != "leave",
        }
        assert_eq!(self.is_in, content["membership"] == if self.kind == TemplateKind::Join { "join" } else { "knock" });
        self.known.insert(event.event_id.clone());
        Ok(())
    }
}

/// Something that happens at a time.
enum Happening {
    /// An input for the process with this number.
    Input(u32, JobInput),
    /// The import's last commit, with the row that it stores.
    Imported(u32, Option<Box<JobRow>>),
    /// A server does what it was asked long ago.
    Late(OwnedServerName, Arc<Pdu>),
    Cancel,
    /// The user joins or knocks again, if a leave is being tried.
    Again,
    /// The process is killed.
    Killed(u32),
    Started,
}

struct World {
    others: Others,
    fates: VecDeque<Fate>,
    /// The numbers of the effects before which the process is killed.
    kills: BTreeSet<u32>,
    effects: u32,
    now_ms: i64,
    happenings: BTreeMap<(i64, u32), Happening>,
    number: u32,
    /// The number of the process, which rises with each start.
    process: u32,
    job: Option<Job>,
    row: Option<JobRow>,
    is_here: bool,
    /// The events of the first kind that were sent.
    sent: BTreeSet<OwnedEventId>,
    signer: ServerSigner,
    random: StdRng,
}

impl World {
    fn at(&mut self, after_ms: i64, happening: Happening) {
        self.number += 1;
        self.happenings.insert((self.now_ms + after_ms, self.number), happening);
    }

    fn run(&mut self) {
        for _ in 0..100_000 {
            let Some(((at_ms, _), happening)) = self.happenings.pop_first() else { return };
            self.now_ms = at_ms;
            match happening {
                Happening::Input(process, input) if process == self.process => self.step(input),
                Happening::Imported(process, then) if process == self.process => {
                    self.commit_import(then);
                    self.step(JobInput::Imported);
                }
                Happening::Killed(process) if process == self.process => self.kill(),
                Happening::Input(..) | Happening::Imported(..) | Happening::Killed(_) => {}
                Happening::Late(server, event) => {
                    drop(self.others.take(&server, &event));
                    self.is_here &= self.others.is_in;
                }
                Happening::Cancel => self.step(JobInput::Cancel),
                Happening::Again => self.again(),
                Happening::Started => {
                    self.job = self.row.clone().map(Job::resume);
                    self.step(JobInput::Due);
                }
            }
        }
        panic!("the run does not end");
    }

    /// The last commit of an import. From then on the other servers send us what comes into the room, and also what has come
    /// since our join: a leave that was late, sent before the user has joined again.
    fn commit_import(&mut self, then: Option<Box<JobRow>>) {
        let event = &self.row.as_ref().unwrap().event.as_ref().unwrap().pdu;
        assert!(self.others.known.contains(&event.event_id), "only what was taken is imported");
        self.is_here = self.others.is_in;
        self.row = then.map(|row| *row);
    }

    fn again(&mut self) {
        if let Some(leave) = self.row.take_if(|row| row.kind == TemplateKind::Leave) {
            let mut row = new_job(self.others.kind, &["a", "b"]).in_place_of(&leave).row().clone();
            row.until_ms += self.now_ms - START_MS;
            self.row = Some(row);
            self.sent.clear();
            self.kill();
        }
    }

    fn kill(&mut self) {
        self.process += 1;
        self.job = None;
        self.at(1_000, Happening::Started);
    }

    fn step(&mut self, input: JobInput) {
        let Some(job) = &mut self.job else { return };
        let effects = job.step(input, &self.signer, self.now_ms, &mut self.random);
        for effect in effects {
            self.effects += 1;
            if self.kills.contains(&self.effects) {
                return self.kill();
            }
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: JobEffect) {
        match effect {
            JobEffect::Store(row) => self.row = Some(*row),
            JobEffect::Delete => self.row = None,
            JobEffect::Wake { at_ms } => {
                let due = Happening::Input(self.process, JobInput::Due);
                self.at(at_ms - self.now_ms, due);
            }
            JobEffect::Ask { server, limit } => {
                let wanted = self.row.as_ref().unwrap().kind;
                let name = server.clone();
                let result = self.exchange(limit, None, |others| others.template(&name, wanted));
                self.answer(result, |result| JobInput::Made { server, result });
            }
            JobEffect::Send { server, event, limit } => {
                let stored = self.row.as_ref().unwrap();
                assert!(matches!(stored.state, JobState::Sent | JobState::Importing), "it is known that it was sent");
                assert_eq!(stored.event.as_ref().unwrap().pdu.event_id, event.event_id, "what is sent is stored");
                if stored.kind == self.others.kind {
                    self.sent.insert(event.event_id.clone());
                }
                let late = Some((&server, &event));
                let result = self.exchange(limit, late, |others| others.take(&server, &event));
                self.answer(result, |result| JobInput::Answered { server: server.clone(), result });
            }
            JobEffect::Import { then, .. } => self.import(then),
            JobEffect::StopImport => {
                let imported = |(_, happening): &(_, &mut Happening)| matches!(happening, Happening::Imported(..));
                let at: Vec<_> = self.happenings.iter_mut().filter(imported).map(|(at, _)| *at).collect();
                at.iter().for_each(|at| drop(self.happenings.remove(at)));
            }
            JobEffect::Resync => {
                let is_complete = !matches!(self.next_fate(), Fate::NotSent | Fate::Busy | Fate::AnswerLost);
                let resynced = Happening::Input(self.process, JobInput::Resynced { is_complete });
                self.at(5_000, resynced);
            }
            JobEffect::Tell(_) => {}
        }
    }

    fn next_fate(&mut self) -> Fate {
        self.fates.pop_front().unwrap_or(Fate::Fine)
    }

    /// A request: the time until its result, and the result. `None`: the process is killed then.
    fn exchange<T>(
        &mut self,
        limit: Duration,
        late: Option<(&OwnedServerName, &Arc<Pdu>)>,
        perform: impl Fn(&mut Others) -> Result<T, AskError>,
    ) -> (i64, Option<Result<T, AskError>>) {
        let limit_ms = i64::try_from(limit.as_millis()).unwrap();
        let fate = self.next_fate();
        // An honest server that has taken the join does not forget it.
        let fate = if fate == Fate::Forbidden && self.row.as_ref().unwrap().kind == TemplateKind::Leave {
            Fate::Busy
        } else {
            fate
        };
        match fate {
            Fate::Fine => (100, Some(perform(&mut self.others))),
            Fate::Slow(seconds) => (i64::from(seconds) * 1_000, Some(perform(&mut self.others))),
            Fate::NotSent => (50, Some(Err(AskError::NotSent))),
            Fate::RequestLost => (limit_ms, Some(Err(AskError::NoAnswer))),
            Fate::AnswerLost => {
                drop(perform(&mut self.others));
                (limit_ms, Some(Err(AskError::NoAnswer)))
            }
            Fate::Late(minutes) => {
                if let Some((server, event)) = late {
                    let happening = Happening::Late(server.clone(), Arc::clone(event));
                    self.at(limit_ms + i64::from(minutes) * 60_000, happening);
                }
                (limit_ms, Some(Err(AskError::NoAnswer)))
            }
            Fate::Busy => (100, Some(Err(refused(429, "M_LIMIT_EXCEEDED")))),
            Fate::Broken => {
                drop(perform(&mut self.others));
                (100, Some(Err(refused(500, "M_UNKNOWN"))))
            }
            // A server that is not in the room. It is no witness for a leave: the others decide.
            Fate::NotFound if self.row.as_ref().unwrap().kind == TemplateKind::Leave => {
                (100, Some(Err(AskError::NotSent)))
            }
            Fate::NotFound => (100, Some(Err(refused(404, "M_NOT_FOUND")))),
            Fate::Forbidden => (100, Some(Err(refused(403, "M_FORBIDDEN")))),
            Fate::KilledBefore => (50, None),
            Fate::KilledAfter => {
                drop(perform(&mut self.others));
                (50, None)
            }
        }
    }

    fn answer<T>(
        &mut self,
        (after_ms, result): (i64, Option<Result<T, AskError>>),
        input: impl FnOnce(Result<T, AskError>) -> JobInput,
    ) {
        let happening = match result {
            Some(result) => Happening::Input(self.process, input(result)),
            None => Happening::Killed(self.process),
        };
        self.at(after_ms, happening);
    }

    fn import(&mut self, then: Option<Box<JobRow>>) {
        let not_imported = JobInput::NotImported;
        let happening = match self.next_fate() {
            Fate::NotFound | Fate::Forbidden => Happening::Input(self.process, not_imported(ImportError::Wrong)),
            Fate::Busy | Fate::Broken => Happening::Input(self.process, not_imported(ImportError::Internal)),
            Fate::KilledBefore => Happening::Killed(self.process),
            Fate::KilledAfter => {
                // Nobody hears of it.
                self.commit_import(then);
                return self.kill();
            }
            Fate::Fine | Fate::Slow(_) => Happening::Imported(self.process, then),
            _ => Happening::Input(self.process, not_imported(ImportError::Interrupted)),
        };
        self.at(30_000, happening);
    }
}

fn world(kind: TemplateKind, is_restricted: bool, fates: Vec<Fate>, kills: BTreeSet<u32>) -> World {
    let job = new_job(kind, &["a", "b"]);
    let mut world = World {
        others: Others { kind, is_restricted, is_in: false, known: BTreeSet::new(), templates: 0 },
        fates: fates.into(),
        kills,
        effects: 0,
        now_ms: START_MS,
        happenings: BTreeMap::new(),
        number: 0,
        process: 0,
        row: Some(job.row().clone()),
        job: None,
        is_here: false,
        sent: BTreeSet::new(),
        signer: signer(),
        random: StdRng::seed_from_u64(1),
    };
    world.at(0, Happening::Started);
    world
}

fn kind() -> impl Strategy<Value = TemplateKind> {
    prop_oneof![3 => Just(TemplateKind::Join), 1 => Just(TemplateKind::Knock)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_join_or_a_knock_ends_alike_on_both_sides(
        kind in kind(),
        is_restricted in any::<bool>(),
        fates in proptest::collection::vec(fate(), 0..24),
        kills in proptest::collection::btree_set(1_u32..40, 0..5),
        cancel in proptest::option::weighted(0.4, prop_oneof![0_i64..20_000, 0_i64..600_000, 0_i64..100_000_000]),
        again in proptest::option::weighted(0.3, prop_oneof![0_i64..1_000_000, 0_i64..100_000_000]),
    ) {
        let is_plain = fates.is_empty() && cancel.is_none();
        let mut world = world(kind, is_restricted, fates, kills);
        if let Some(after_ms) = cancel {
            world.at(after_ms, Happening::Cancel);
        }
        if let Some(after_ms) = again {
            world.at(after_ms, Happening::Again);
        }
        world.run();
        prop_assert!(world.row.is_none(), "the job has ended");
        prop_assert_eq!(world.is_here, world.others.is_in, "both sides agree");
        prop_assert!(world.is_here || !is_plain, "without trouble the user is in, whenever the process is killed");
        if !(is_restricted && kind == TemplateKind::Join) {
            prop_assert!(world.sent.len() <= 1, "no second event took the place of the first: {:?}", world.sent);
        }
    }
}
