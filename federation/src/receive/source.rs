//! The origins of events: another server, or a local user.

use std::sync::Arc;

use ruma::OwnedEventId;

use super::{Incoming, Mode, Stored};
use crate::{
    pdu::Pdu,
    standing::{Flags, StateAt},
};

/// An event of any origin, as it is judged and settled.
pub trait Source: Send + Sync {
    fn pdu(&self) -> &Pdu;

    /// The way on which the event came, which says its place.
    fn mode(&self) -> Mode;

    /// The flags that the origin alone says.
    fn flags(&self) -> Flags;

    /// The state after a missing previous event, as another server told it.
    fn told(&self, prev: &OwnedEventId) -> Option<StateAt>;

    /// Whether the event is rejected whatever the rules say.
    fn ends_rejected(&self) -> bool;

    fn into_stored(self) -> Stored;
}

impl Source for Incoming {
    fn pdu(&self) -> &Pdu {
        self.event.pdu()
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn flags(&self) -> Flags {
        Flags::NONE
    }

    fn told(&self, prev: &OwnedEventId) -> Option<StateAt> {
        self.told.get(prev).copied().filter(|_| self.mode != Mode::Pushed)
    }

    fn ends_rejected(&self) -> bool {
        self.event.ends_rejected()
    }

    fn into_stored(self) -> Stored {
        Stored::Received(Box::new(self.event))
    }
}

/// An event that this server built and signed.
pub struct Ours(pub Arc<Pdu>);

impl Source for Ours {
    fn pdu(&self) -> &Pdu {
        &self.0
    }

    /// It goes to the end of the line.
    fn mode(&self) -> Mode {
        Mode::Pushed
    }

    fn flags(&self) -> Flags {
        Flags::OURS
    }

    fn told(&self, _: &OwnedEventId) -> Option<StateAt> {
        None
    }

    fn ends_rejected(&self) -> bool {
        false
    }

    fn into_stored(self) -> Stored {
        Stored::Ours(self.0)
    }
}
