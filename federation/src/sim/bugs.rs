//! Planted bugs: a simulation with one of them must fail, or its checks check nothing.

use super::store::Memory;
use crate::{
    ids::EventNid,
    receive::{Decision, Placing},
    standing::{Flags, StateAt},
};

/// A mistake that all servers of a simulation make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bug {
    /// An event covers only the events that it names, and nothing behind those that failed.
    CoversStopAtFailed,
    /// The last change of a resolution is not stored.
    ForgetsConflictedKey,
    /// An event that the current state forbids is rejected and not soft-failed.
    RejectsSoftFailed,
    /// The state before an event that joins branches is the current one.
    CurrentStateBefore,
    /// An event that the state before it forbids is stored as if it were only soft-failed.
    SoftFailsRejected,
    /// Users are told that their event was sent before it is on disk.
    AcknowledgesEarly,
    /// A redaction redacts nothing.
    IgnoresRedactions,
    /// No signature is verified.
    BelievesSignatures,
}

impl Bug {
    pub const ALL: [Self; 8] = [
        Self::CoversStopAtFailed,
        Self::ForgetsConflictedKey,
        Self::RejectsSoftFailed,
        Self::CurrentStateBefore,
        Self::SoftFailsRejected,
        Self::AcknowledgesEarly,
        Self::IgnoresRedactions,
        Self::BelievesSignatures,
    ];

    /// A part of the violation as which it must be found.
    pub fn found_as(self) -> &'static str {
        match self {
            Self::CoversStopAtFailed => "the only tip",
            Self::ForgetsConflictedKey => "the room's state with",
            Self::RejectsSoftFailed => "is Rejected, and should be SoftFailed",
            Self::CurrentStateBefore => "the state before",
            Self::SoftFailsRejected => "is SoftFailed, and should be Rejected",
            Self::AcknowledgesEarly => "which was acknowledged",
            Self::IgnoresRedactions => "the redacted events",
            Self::BelievesSignatures => "which was not verified",
        }
    }

    /// Spoils a decision.
    pub fn spoil(self, memory: &Memory, decision: &mut Decision) {
        let is = |flags| decision.flags.contains(flags);
        match self {
            Self::CoversStopAtFailed => {
                let named: &[EventNid] = &decision.prev;
                decision.covers.retain(|nid| named.contains(nid));
            }
            Self::ForgetsConflictedKey => {
                if decision.changes.len() > 1 {
                    decision.changes.pop();
                }
            }
            Self::RejectsSoftFailed if is(Flags::SOFT_FAILED) => decision.flags = Flags::REJECTED,
            Self::SoftFailsRejected if is(Flags::REJECTED) => decision.flags = Flags::SOFT_FAILED,
            Self::CurrentStateBefore if decision.prev.len() > 1 && decision.placing == Placing::EndOfLine => {
                decision.before = StateAt::in_log(memory.head().state_pos);
            }
            Self::IgnoresRedactions => decision.redaction = None,
            // Not the case for it, or nothing that a decision has.
            Self::RejectsSoftFailed
            | Self::SoftFailsRejected
            | Self::CurrentStateBefore
            | Self::AcknowledgesEarly
            | Self::BelievesSignatures => {}
        }
    }
}
