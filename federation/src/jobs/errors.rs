//! The failures of other servers, and what follows from each.

use std::time::Duration;

use ruma::{OwnedServerName, api::error::ErrorCode};

use crate::build::{
    BuildError,
    template::{TemplateError, TemplateKind},
};

/// Why a server did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The request cannot have reached the server: no address, no connection, no TLS.
    #[error("the server could not be reached")]
    NotSent,
    /// The request may have reached the server, but no whole answer came in time.
    #[error("the server did not answer")]
    NoAnswer,
    /// Any status but 2xx.
    #[error("the server answered with status {status}, {errcode}")]
    Refused { status: u16, errcode: ErrorCode, retry_after: Option<Duration> },
    #[error("the server answered with a wrong template")]
    Malformed(#[from] TemplateError),
}

/// Why a room could not be taken from an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImportError {
    /// The answer is not that of an honest server: it lacks the create event, has another room version, or does not allow
    /// our own event.
    #[error("the room in the server's answer is wrong")]
    Wrong,
    /// The answer broke off, or something that it needs could not be fetched.
    #[error("the answer was not read to its end")]
    Interrupted,
    /// Our own database or disk failed. No other server can help.
    #[error("the room could not be stored")]
    Internal,
}

/// Why a job failed, or one round of it. Of several failures the one that says the most.
#[derive(Debug, thiserror::Error)]
pub enum JobFailure {
    #[error("no server is known that could be in the room")]
    NoServer,
    #[error("no server that could be in the room can be reached")]
    Unreachable,
    #[error("{server} refused with status {status}, {errcode}")]
    Refused { server: OwnedServerName, status: u16, errcode: ErrorCode },
    #[error("{server} sent a wrong template")]
    Malformed { server: OwnedServerName, source: TemplateError },
    #[error("the room could not be taken from the answer of {server}")]
    NotImported { server: OwnedServerName, source: ImportError },
    #[error("the event could not be built")]
    Build(#[source] BuildError),
    #[error("the user has left")]
    Cancelled,
    #[error("the time for it is over")]
    Expired,
}

impl JobFailure {
    pub(super) fn of_answer(server: OwnedServerName, error: AskError) -> Self {
        match error {
            AskError::NotSent | AskError::NoAnswer => Self::Unreachable,
            AskError::Refused { status, errcode, .. } => Self::Refused { server, status, errcode },
            AskError::Malformed(source) => Self::Malformed { server, source },
        }
    }

    /// How much the failure says to the user. The failure of a server that is not in the room says little.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::NoServer => 0,
            Self::Unreachable => 1,
            Self::Refused { status, errcode, .. } => match of_refusal(*status, errcode) {
                Refusal::Passing => 2,
                Refusal::Other => 3,
                Refusal::NotThisServer => 6,
                Refusal::Forbidden | Refusal::Incompatible => 7,
            },
            Self::Malformed { .. } => 4,
            Self::NotImported { .. } => 5,
            Self::Build(_) | Self::Cancelled | Self::Expired => 8,
        }
    }
}

/// The consequences of a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    /// No other server would say something else, so a join or a knock ends here. Never for a leave: a server that says
    /// that there is nothing to leave may not know yet.
    pub ends: bool,
    /// The server may say something else later.
    pub may_pass: bool,
    /// The server may have taken the event, without our knowing.
    pub may_be_taken: bool,
}

const NEXT: Verdict = Verdict { ends: false, may_pass: false, may_be_taken: false };
const PASSING: Verdict = Verdict { may_pass: true, ..NEXT };
const LOST: Verdict = Verdict { may_be_taken: true, ..PASSING };

/// Judges a failure of `make_join`, `make_knock` or `make_leave`, which changes nothing at the other server.
pub(super) fn of_make(kind: TemplateKind, error: &AskError) -> Verdict {
    match error {
        AskError::NotSent | AskError::NoAnswer => PASSING,
        // Another server may be honest, or another implementation.
        AskError::Malformed(_) => NEXT,
        AskError::Refused { status, errcode, .. } => match of_refusal(*status, errcode) {
            Refusal::Forbidden | Refusal::Incompatible => Verdict { ends: kind != TemplateKind::Leave, ..NEXT },
            Refusal::NotThisServer | Refusal::Other => NEXT,
            Refusal::Passing => PASSING,
        },
    }
}

/// Judges a failure of `send_join`, `send_knock` or `send_leave`.
pub(super) fn of_send(kind: TemplateKind, error: &AskError) -> Verdict {
    match error {
        AskError::NotSent => PASSING,
        // A status of success with a body that cannot be read.
        AskError::NoAnswer | AskError::Malformed(_) => LOST,
        // The server has read the request and says that it does not handle it.
        AskError::Refused { status: 401 | 429, .. } => PASSING,
        // It may have failed, or a proxy may have given up, after the event was stored.
        AskError::Refused { status, .. } if !(400..500).contains(status) || *status == 408 => LOST,
        error @ AskError::Refused { .. } => of_make(kind, error),
    }
}

enum Refusal {
    /// The room does not let the user in. Other servers have the same state of the room.
    Forbidden,
    /// We do not have the room's version.
    Incompatible,
    /// The server cannot say whether a restricted room lets the user in, or has nobody who may let them in. Another server
    /// may. (`M_UNABLE_TO_AUTHORISE_JOIN`, `M_UNABLE_TO_GRANT_JOIN`.)
    NotThisServer,
    /// The server is busy or broken, or has trouble with our key.
    Passing,
    /// The server does not know the room, or the request.
    Other,
}

fn of_refusal(status: u16, errcode: &ErrorCode) -> Refusal {
    match (status, errcode) {
        // These two first: some servers send them with status 403.
        (400..500, ErrorCode::UnableToAuthorizeJoin | ErrorCode::UnableToGrantJoin) => Refusal::NotThisServer,
        (400..500, ErrorCode::IncompatibleRoomVersion) => Refusal::Incompatible,
        (401 | 408 | 429, _) => Refusal::Passing,
        (403, _) | (400..500, ErrorCode::Forbidden) => Refusal::Forbidden,
        (400..500, _) => Refusal::Other,
        _ => Refusal::Passing,
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_server_name;

    use super::*;

    const ENDS: Verdict = Verdict { ends: true, ..NEXT };

    fn refused(status: u16, errcode: &str) -> AskError {
        AskError::Refused { status, errcode: ErrorCode::from(errcode), retry_after: None }
    }

    /// The errors with the verdicts on a join's template, on a join, and the same two for a leave.
    fn table() -> Vec<(AskError, [Verdict; 4])> {
        vec![
            (AskError::NotSent, [PASSING; 4]),
            (AskError::NoAnswer, [PASSING, LOST, PASSING, LOST]),
            (AskError::Malformed(TemplateError::NoPrevEvents), [NEXT, LOST, NEXT, LOST]),
            // The room's own word. A server that knows of no membership may only be late, so a leave goes on.
            (refused(403, "M_FORBIDDEN"), [ENDS, ENDS, NEXT, NEXT]),
            (refused(403, "M_UNKNOWN"), [ENDS, ENDS, NEXT, NEXT]),
            (refused(400, "M_FORBIDDEN"), [ENDS, ENDS, NEXT, NEXT]),
            (refused(400, "M_INCOMPATIBLE_ROOM_VERSION"), [ENDS, ENDS, NEXT, NEXT]),
            // Another server may be able to let the user in.
            (refused(400, "M_UNABLE_TO_AUTHORISE_JOIN"), [NEXT; 4]),
            (refused(400, "M_UNABLE_TO_GRANT_JOIN"), [NEXT; 4]),
            (refused(403, "M_UNABLE_TO_GRANT_JOIN"), [NEXT; 4]),
            // Another server may know the room, or understand the request.
            (refused(404, "M_NOT_FOUND"), [NEXT; 4]),
            (refused(404, "M_UNRECOGNIZED"), [NEXT; 4]),
            (refused(405, "M_UNRECOGNIZED"), [NEXT; 4]),
            (refused(400, "M_INVALID_PARAM"), [NEXT; 4]),
            (refused(400, "M_BAD_JSON"), [NEXT; 4]),
            (refused(413, "M_TOO_LARGE"), [NEXT; 4]),
            // It may pass, and the event was not taken.
            (refused(401, "M_UNAUTHORIZED"), [PASSING; 4]),
            (refused(429, "M_LIMIT_EXCEEDED"), [PASSING; 4]),
            // It may pass, and the event may have been taken.
            (refused(408, "M_UNKNOWN"), [PASSING, LOST, PASSING, LOST]),
            (refused(500, "M_UNKNOWN"), [PASSING, LOST, PASSING, LOST]),
            (refused(502, "M_UNKNOWN"), [PASSING, LOST, PASSING, LOST]),
            (refused(504, "M_FORBIDDEN"), [PASSING, LOST, PASSING, LOST]),
            (refused(301, "M_UNKNOWN"), [PASSING, LOST, PASSING, LOST]),
        ]
    }

    #[test]
    fn each_failure_has_its_consequences() {
        for (error, expected) in table() {
            for kind in [TemplateKind::Join, TemplateKind::Knock] {
                assert_eq!([of_make(kind, &error), of_send(kind, &error)], expected[..2], "{kind:?}: {error:?}");
            }
            let leave = TemplateKind::Leave;
            assert_eq!([of_make(leave, &error), of_send(leave, &error)], expected[2..], "leave: {error:?}");
        }
    }

    #[test]
    fn a_failure_that_ends_a_join_says_more_than_any_other() {
        let rank = |error| JobFailure::of_answer(owned_server_name!("a.org"), error).rank();
        let in_order = [
            AskError::NotSent,
            refused(500, "M_UNKNOWN"),
            refused(404, "M_NOT_FOUND"),
            AskError::Malformed(TemplateError::NoPrevEvents),
            refused(400, "M_UNABLE_TO_GRANT_JOIN"),
            refused(403, "M_FORBIDDEN"),
        ];
        assert!(in_order.map(rank).is_sorted_by(|one, next| one < next));
    }
}
