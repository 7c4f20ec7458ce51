//! Jobs step by step, and in [`simulation`] against servers that lose, refuse and delay.

mod joins;
mod others;
mod simulation;

use rand::{SeedableRng as _, rngs::StdRng};
use ruma::{
    EventId, OwnedUserId, RoomVersionId, api::error::ErrorCode, owned_room_id, owned_user_id, room_id, user_id,
};
use serde_json::value::to_raw_value;

use super::*;

const START_MS: i64 = 1_700_000_000_000;

fn signer() -> ServerSigner {
    let file = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n";
    ServerSigner::from_key_file("example.org".try_into().unwrap(), file).unwrap()
}

fn server(name: &str) -> OwnedServerName {
    OwnedServerName::try_from(format!("{name}.org")).unwrap()
}

/// A template that is good in every way. `number` makes it another one.
fn template(number: u8, authoriser: Option<OwnedUserId>) -> Template {
    let id = |letter: char| EventId::parse(format!("${letter}{number:03}{}", "x".repeat(39))).unwrap();
    Template {
        room_version: RoomVersionId::V11,
        prev_events: vec![id('p')],
        auth_events: vec![id('c'), id('l')],
        depth: 12,
        authoriser,
    }
}

fn refused(status: u16, errcode: &str) -> AskError {
    AskError::Refused { status, errcode: ErrorCode::from(errcode), retry_after: None }
}

fn new_job(kind: TemplateKind, via: &[&str]) -> Job {
    let wanted = Wanted { kind, room_id: room_id!("!room:c.org"), user: user_id!("@alice:example.org") };
    let content = to_raw_value(&serde_json::json!({ "displayname": "Alice" })).unwrap();
    Job::new(&wanted, content, via.iter().map(|name| server(name)), None, START_MS)
}

/// A job with all that it needs. Effects are written as short lines.
struct Bench {
    job: Job,
    signer: ServerSigner,
    random: StdRng,
    now_ms: i64,
    /// The row as it is stored.
    row: Option<JobRow>,
}

impl Bench {
    fn new(kind: TemplateKind, via: &[&str]) -> Self {
        let job = new_job(kind, via);
        let row = Some(job.row().clone());
        Self { job, signer: signer(), random: StdRng::seed_from_u64(7), now_ms: START_MS, row }
    }

    fn step(&mut self, input: JobInput) -> Vec<String> {
        let effects = self.job.step(input, &self.signer, self.now_ms, &mut self.random);
        effects.iter().map(|effect| self.take(effect)).collect()
    }

    fn take(&mut self, effect: &JobEffect) -> String {
        match effect {
            JobEffect::Store(row) => {
                self.row = Some(JobRow::clone(row));
                format!("store {:?} {:?}", row.kind, row.state)
            }
            JobEffect::Delete => {
                self.row = None;
                "delete".to_owned()
            }
            JobEffect::Ask { server, limit } => format!("ask {server} {}", limit.as_secs()),
            JobEffect::Send { server, event, limit } => {
                let stored = self.row.as_ref().unwrap();
                assert!(matches!(stored.state, JobState::Sent | JobState::Importing), "stored before it is sent");
                assert_eq!(stored.event.as_ref().unwrap().pdu.event_id, event.event_id);
                format!("send {server} {}", limit.as_secs())
            }
            JobEffect::Import { server, then } => {
                format!("import {server} {:?}", then.as_ref().map(|row| row.state))
            }
            JobEffect::StopImport => "stop".to_owned(),
            JobEffect::Resync => "resync".to_owned(),
            JobEffect::Tell(JobNews::Done) => "done".to_owned(),
            JobEffect::Tell(JobNews::Failed(failure)) => format!("failed: {failure}"),
            JobEffect::Tell(JobNews::Later(failure)) => format!("later: {failure}"),
            JobEffect::Wake { at_ms } => format!("wake +{}", (at_ms - self.now_ms) / 1_000),
        }
    }

    fn due(&mut self) -> Vec<String> {
        self.step(JobInput::Due)
    }

    fn made(&mut self, name: &str, result: Result<Template, AskError>) -> Vec<String> {
        self.step(JobInput::Made { server: server(name), result })
    }

    fn answered(&mut self, name: &str, result: Result<(), AskError>) -> Vec<String> {
        self.step(JobInput::Answered { server: server(name), result })
    }

    /// Takes a good template from the first server, so that the event is on its way there.
    fn sent(kind: TemplateKind, via: &[&str]) -> Self {
        let mut bench = Self::new(kind, via);
        bench.due();
        bench.made(via[0], Ok(template(1, None)));
        assert_eq!(bench.job.row().state, JobState::Sent);
        bench
    }

    fn event(&self) -> Arc<Pdu> {
        Arc::clone(&self.job.row().event.as_ref().unwrap().pdu)
    }

    /// The process ends, and another one starts after some time.
    fn restart(&mut self, after: Duration) {
        self.job = Job::resume(self.row.clone().unwrap());
        self.pass(after);
    }

    fn pass(&mut self, time: Duration) {
        self.now_ms += i64::try_from(time.as_millis()).unwrap();
    }
}

#[test]
fn states_are_read_back_unless_their_row_is_deleted() {
    for code in 0..=u8::MAX {
        assert_eq!(JobState::from_code(code).map(JobState::code), (1..=6).contains(&code).then_some(code));
    }
}

#[test]
fn the_servers_to_try_are_bounded_and_without_this_one() {
    let via = |names: &[&str]| -> Vec<String> {
        new_job(TemplateKind::Join, names).row().via.iter().map(ToString::to_string).collect()
    };
    assert_eq!(via(&["a", "b", "a", "example"]), ["a.org", "b.org", "c.org"]);
    assert_eq!(via(&["c", "a"]), ["c.org", "a.org"]);
    assert_eq!(via(&[]), ["c.org"]);
    let many: Vec<String> = (0..50).map(|number| format!("s{number}")).collect();
    let many = via(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((many.len(), many[18].as_str(), many[19].as_str()), (20, "s18.org", "c.org"));
    // From version 12 on, the ID of a room names no server.
    let room_id = owned_room_id!("!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let wanted = Wanted { kind: TemplateKind::Join, room_id: &room_id, user: user_id!("@alice:example.org") };
    let content = RawValue::from_string("{}".to_owned()).unwrap();
    let mut job = Job::new(&wanted, content, [], None, START_MS);
    let effects = job.step(JobInput::Due, &signer(), START_MS, &mut StdRng::seed_from_u64(1));
    assert!(matches!(*effects, [JobEffect::Delete, JobEffect::Tell(JobNews::Failed(JobFailure::NoServer))]));
}

fn moderator(name: &str) -> Option<OwnedUserId> {
    Some(if name == "a" { owned_user_id!("@mod:a.org") } else { owned_user_id!("@mod:b.org") })
}
