//! An event that was judged by a class of rules.

use std::sync::{Arc, OnceLock};

use ruma::{OwnedEventId, OwnedUserId, UserId};

use crate::{
    push::rules::{evaluate::Verdict, judgement::Judgement},
    room::{
        Room, Rooms,
        event::StoredEvent,
        read::{threads::Conversation, timeline::PlainEvent},
    },
    store::{Error, EventNid, Position, vocabulary::User},
};

/// Approximate memory of a judged event without its texts, and of what only some have.
const EVENT_BYTES: usize = size_of::<Judged>() + 32;
const RARE_BYTES: usize = size_of::<Rare>() + 128;

/// An event with the verdict of a class, and with all that a count needs of it. It is small, because the latest hundred events
/// of each room of an account should stay in memory, for the next member who counts them.
pub(in crate::push::unread) struct Judged {
    pub(in crate::push::unread) pos: Position,
    pub(in crate::push::unread) nid: EventNid,
    pub(super) sender: Arc<OwnedUserId>,
    /// Set for a message: its sender has read the thread that it goes to. A state event, such as a membership or topic
    /// change, or a redaction can be sent without looking at the room.
    pub(in crate::push::unread) marks_as_read: bool,
    pub(in crate::push::unread) is_redacted: bool,
    pub(in crate::push::unread) judgement: Judgement,
    /// The work of the judgement: well below four billions for the largest event and the most rules.
    steps: u32,
    /// `None` for an event that redacts nothing and is in the main timeline, without related events.
    rare: Option<Box<Rare>>,
}

/// The parts of an event that only some have.
struct Rare {
    redacts: Redacts,
    /// The conversation, once it is known; `None` for the main timeline without related events.
    conversation: OnceLock<Option<Conversation>>,
}

/// The redaction that an event makes.
enum Redacts {
    Nothing,
    Event(Box<OwnedEventId>, OnceLock<Option<Redacted>>),
    /// A redaction that was itself redacted and no longer says what it redacted.
    Unknown,
}

/// An event that was redacted.
pub(in crate::push::unread) struct Redacted {
    pub(in crate::push::unread) nid: EventNid,
    sender: OwnedUserId,
    /// The user whose display name was removed with it.
    named: Option<String>,
    pub(super) is_power_levels: bool,
}

/// The effect of an event on earlier ones.
pub(in crate::push::unread) enum Effect<'a> {
    None,
    Redacts(&'a Redacted),
    /// It redacted an event that nobody knows any more.
    Unknown,
}

impl Redacted {
    fn new(event: &StoredEvent) -> Self {
        let pdu = &event.pdu;
        let named = pdu.state_key.clone().filter(|_| pdu.event_type == "m.room.member");
        let is_power_levels = pdu.is_state("m.room.power_levels", "");
        Self { nid: event.nid, sender: pdu.sender.clone(), named, is_power_levels }
    }

    /// Returns whether all events of the room may count otherwise for the user. Their own events say what they have read,
    /// and the others hold their name in the room or the power levels.
    pub(in crate::push::unread) fn changes_all(&self, user_id: &UserId) -> bool {
        self.sender == user_id || self.named.as_deref() == Some(user_id.as_str()) || self.is_power_levels
    }
}

impl Rare {
    /// Parts of an event, if it has any.
    fn new(redacts: Redacts, conversation: OnceLock<Option<Conversation>>) -> Option<Box<Self>> {
        let is_plain = matches!(redacts, Redacts::Nothing) && matches!(conversation.get(), Some(None));
        (!is_plain).then(|| Box::new(Self { redacts, conversation }))
    }
}

impl Judged {
    pub(super) fn new(
        event: &PlainEvent,
        sender: Arc<OwnedUserId>,
        (judgement, steps): (Judgement, usize),
        conversation: OnceLock<Option<Conversation>>,
    ) -> Self {
        let PlainEvent { pos, nid, pdu, is_redacted } = event;
        let is_redaction = pdu.event_type == "m.room.redaction";
        let redacts = match &pdu.redacts {
            Some(event_id) => Redacts::Event(Box::new(event_id.clone()), OnceLock::new()),
            None if is_redaction && *is_redacted => Redacts::Unknown,
            None => Redacts::Nothing,
        };
        let marks_as_read = pdu.state_key.is_none() && !is_redaction;
        let (pos, nid, is_redacted) = (*pos, *nid, *is_redacted);
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        Self { pos, nid, sender, marks_as_read, is_redacted, judgement, steps, rare: Rare::new(redacts, conversation) }
    }

    pub(in crate::push::unread) fn steps(&self) -> usize {
        self.steps as usize
    }

    pub(in crate::push::unread) fn sender(&self) -> &UserId {
        &self.sender
    }

    /// The event in its redacted form.
    pub(super) fn redacted(&self) -> Self {
        let rare = Rare::new(self.redacts_anew(), OnceLock::from(None));
        Self { is_redacted: true, judgement: Judgement::default(), steps: 0, rare, ..self.unsettled() }
    }

    /// The event without its conversation, which has changed.
    pub(super) fn unsettled(&self) -> Self {
        let rare = Rare::new(self.redacts_anew(), OnceLock::new());
        Self { sender: Arc::clone(&self.sender), judgement: self.judgement.clone(), rare, ..*self }
    }

    /// The redaction that the event makes, before anybody has looked for its effect.
    fn redacts_anew(&self) -> Redacts {
        match self.rare.as_ref().map(|rare| &rare.redacts) {
            None | Some(Redacts::Nothing) => Redacts::Nothing,
            Some(Redacts::Event(event_id, _)) => Redacts::Event(event_id.clone(), OnceLock::new()),
            Some(Redacts::Unknown) => Redacts::Unknown,
        }
    }

    /// Returns whether the conversation may be another one now that an event was redacted.
    pub(super) fn may_go_through(&self, redacted: EventNid) -> bool {
        match self.known_conversation() {
            Some(known) => known.is_some_and(|conversation| conversation.through.contains(&redacted)),
            // Somebody may be reading the conversation right now, through the event as it was.
            None => true,
        }
    }

    /// The conversation that the event belongs to.
    pub(in crate::push::unread) async fn conversation(
        &self,
        rooms: &Rooms,
        room: &Room,
    ) -> Result<Option<&Conversation>, Error> {
        let Some(rare) = &self.rare else { return Ok(None) };
        if let Some(known) = rare.conversation.get() {
            return Ok(known.as_ref());
        }
        let event = rooms.events.get(room, self.nid).await?;
        let conversation = rooms.conversation(room, &event.pdu).await?;
        Ok(rare.conversation.get_or_init(|| unless_plain(conversation)).as_ref())
    }

    /// The conversation that the event belongs to, if it is known already.
    pub(in crate::push::unread) fn known_conversation(&self) -> Option<Option<&Conversation>> {
        let Some(rare) = &self.rare else { return Some(None) };
        rare.conversation.get().map(Option::as_ref)
    }

    /// Returns whether the event changes the counts of a user for whom the verdict is.
    pub(in crate::push::unread) fn matters(&self, verdict: Verdict, user: &User) -> bool {
        if self.sender() == user.user_id { self.marks_as_read } else { verdict.notify }
    }

    /// Returns whether the event redacts another one, or once did.
    pub(in crate::push::unread) fn is_redaction(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !matches!(rare.redacts, Redacts::Nothing))
    }

    /// The effect of the event on earlier ones.
    pub(in crate::push::unread) async fn effect(&self, rooms: &Rooms, room: &Room) -> Result<Effect<'_>, Error> {
        let (event_id, redacted) = match self.rare.as_ref().map(|rare| &rare.redacts) {
            None | Some(Redacts::Nothing) => return Ok(Effect::None),
            Some(Redacts::Unknown) => return Ok(Effect::Unknown),
            Some(Redacts::Event(event_id, redacted)) => (event_id, redacted),
        };
        if redacted.get().is_none() {
            let found = rooms.find_in_timeline(room, event_id).await?;
            let found = found.filter(|event| event.redacted_because.is_some());
            let _ = redacted.set(found.as_deref().map(Redacted::new));
        }
        Ok(redacted.get().and_then(Option::as_ref).map_or(Effect::None, Effect::Redacts))
    }

    /// Approximate memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        EVENT_BYTES + self.judgement.bytes() + if self.rare.is_some() { RARE_BYTES } else { 0 }
    }
}

/// The conversation, unless it is the main timeline without related events.
pub(super) fn unless_plain(conversation: Conversation) -> Option<Conversation> {
    (conversation != Conversation::default()).then_some(conversation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_takes_few_bytes() {
        // A share of 25 MiB has room for a hundred events of a thousand rooms, each with a body of a hundred bytes.
        const { assert!(EVENT_BYTES <= 128) };
    }
}
