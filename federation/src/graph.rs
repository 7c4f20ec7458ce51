//! The graph of a room's events: the events that an event covers, forward extremities, places in the timeline, auth
//! chains, and redactions.
//!
//! An event names earlier events twice: as `prev_events`, the last ones that its server knew, and as `auth_events`, the
//! ones that allow it. Other servers choose both. So every walk has a bound, and looks only at events of the room.
//!
//! - [`missing`]: the previous events of an event that are known, and those that are not.
//! - [`covers`](mod@covers): the forward extremities that an event removes.
//! - [`extremities`]: the forward extremities of a room, those that a local event names, and those to be pruned.
//! - [`places`]: gaps in a timeline, and the places of events of history.
//! - [`auth_chain`](mod@auth_chain): all events that an event rests on by its auth events.
//! - [`redactions`]: the events that a redaction may redact.

pub mod auth_chain;
pub mod covers;
pub mod extremities;
pub mod missing;
pub mod places;
pub mod redactions;

#[cfg(test)]
mod tests;

pub use self::{
    auth_chain::{ChainError, MAX_AUTH_CHAIN, auth_chain, auth_depth, auth_event_ids},
    covers::{Covered, covers, late},
    extremities::{Extremities, Extremity, NoneLeft},
    missing::{Previous, is_covered, previous},
    places::{Gap, island},
    redactions::{by_power, may_redact},
};
