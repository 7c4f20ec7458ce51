//! An event that was judged by a class of rules.

use std::sync::{Arc, OnceLock};

use ruma::{OwnedEventId, OwnedUserId, UserId};

use crate::{
    push::rules::{evaluate::Verdict, judgement::Judgement},
    room::{Room, Rooms, event::StoredEvent, read::threads::Conversation},
    store::{Error, EventNid, Position, vocabulary::User},
};

/// Approximate memory of a judged event without its texts.
const EVENT_BYTES: usize = 160;

/// An event with the verdict of a class, and with all that a count needs of it.
pub(in crate::push::unread) struct Judged {
    pub(in crate::push::unread) pos: Position,
    pub(in crate::push::unread) nid: EventNid,
    pub(super) sender: Arc<OwnedUserId>,
    /// Set for a message: its sender has read the thread that it goes to. A state event, such as a membership or topic
    /// change, or a redaction can be sent without looking at the room.
    pub(in crate::push::unread) marks_as_read: bool,
    pub(in crate::push::unread) is_redacted: bool,
    pub(in crate::push::unread) judgement: Judgement,
    /// The work of the judgement.
    pub(in crate::push::unread) steps: usize,
    pub(super) redacts: Redacts,
    /// The conversation, once it is known; `None` for the main timeline without related events.
    pub(super) conversation: OnceLock<Option<Box<Conversation>>>,
}

/// The redaction that an event makes.
pub(super) enum Redacts {
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

impl Judged {
    pub(in crate::push::unread) fn sender(&self) -> &UserId {
        &self.sender
    }

    /// The event in its redacted form.
    pub(super) fn redacted(&self) -> Self {
        let (judgement, conversation) = (Judgement::default(), OnceLock::from(None));
        Self { is_redacted: true, judgement, steps: 0, conversation, ..self.unsettled() }
    }

    /// The event without its conversation, which has changed.
    pub(super) fn unsettled(&self) -> Self {
        let redacts = match &self.redacts {
            Redacts::Nothing => Redacts::Nothing,
            Redacts::Event(event_id, _) => Redacts::Event(event_id.clone(), OnceLock::new()),
            Redacts::Unknown => Redacts::Unknown,
        };
        let (sender, judgement, conversation) = (Arc::clone(&self.sender), self.judgement.clone(), OnceLock::new());
        Self { sender, judgement, redacts, conversation, ..*self }
    }

    /// The conversation that the event belongs to.
    pub(in crate::push::unread) async fn conversation(
        &self,
        rooms: &Rooms,
        room: &Room,
    ) -> Result<Option<&Conversation>, Error> {
        if let Some(known) = self.conversation.get() {
            return Ok(known.as_deref());
        }
        let event = rooms.events.get(room, self.nid).await?;
        let conversation = rooms.conversation(room, &event.pdu).await?;
        Ok(self.conversation.get_or_init(|| boxed(conversation)).as_deref())
    }

    /// The conversation that the event belongs to, if it is known already.
    pub(in crate::push::unread) fn known_conversation(&self) -> Option<Option<&Conversation>> {
        self.conversation.get().map(Option::as_deref)
    }

    /// Returns whether the event changes the counts of a user for whom the verdict is.
    pub(in crate::push::unread) fn matters(&self, verdict: Verdict, user: &User) -> bool {
        if self.sender() == user.user_id { self.marks_as_read } else { verdict.notify }
    }

    /// Returns whether the event redacts another one, or once did.
    pub(in crate::push::unread) fn is_redaction(&self) -> bool {
        !matches!(self.redacts, Redacts::Nothing)
    }

    /// The effect of the event on earlier ones.
    pub(in crate::push::unread) async fn effect(&self, rooms: &Rooms, room: &Room) -> Result<Effect<'_>, Error> {
        let (event_id, redacted) = match &self.redacts {
            Redacts::Nothing => return Ok(Effect::None),
            Redacts::Unknown => return Ok(Effect::Unknown),
            Redacts::Event(event_id, redacted) => (event_id, redacted),
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
        EVENT_BYTES + self.judgement.bytes()
    }
}

pub(super) fn boxed(conversation: Conversation) -> Option<Box<Conversation>> {
    (conversation != Conversation::default()).then(|| Box::new(conversation))
}
