//! Counting for a user who is joined, from memory alone: what is new was judged for somebody else of the class.
//!
//! Promise: the counts are those of [`Push::unread`], or there are none, and nothing has changed.

use std::sync::{Arc, atomic::Ordering};

use super::{BasisVersion, Counted, MAX_THROUGH, Owed, Unread};
use crate::{
    account_data::ignored::Ignored,
    ephemeral::Ephemeral,
    push::{Push, UserRules, rules::evaluate::Verdict},
    room::{Room, Rooms, memberships::MemberEntry},
    store::{Position, vocabulary::User},
};

/// Maximum steps of matching for the events of one look, which lets nobody else run meanwhile: well below a millisecond.
const MAX_STEPS: usize = 64 * 1024;

/// A user who is joined to a room, with their membership.
#[derive(Clone, Copy)]
pub struct Joined<'a> {
    pub user: &'a User,
    pub member: &'a MemberEntry,
}

impl Push {
    /// As [`Self::unread`], for a user who is joined, and whose count memory can complete at once. `None` otherwise.
    pub fn unread_in_memory(
        &self,
        (rooms, ephemeral): (&Rooms, &Ephemeral),
        room: &Room,
        joined: Joined<'_>,
        upto: Position,
    ) -> Option<Unread> {
        let key = (joined.user.nid, room.nid);
        let entry = self.tallies.0.get(&key)?;
        let mut held = entry.counted.try_lock().ok()?;
        let counted = held.as_mut()?;
        // The user has been joined since then, so the count still begins with the same join.
        let is_of_this_stay = joined.member.pos <= counted.upto;
        if counted.owed != Owed::Nothing || !is_of_this_stay {
            return None;
        }
        let basis = self.present(&counted.basis, joined.user)?;
        let reads = if ephemeral.no_receipt_since(room.nid, counted.read_upto) {
            None
        } else {
            Some(ephemeral.reads_in_memory(room.nid, joined.user.nid)?)
        };
        let bytes_before = counted.bytes();
        if counted.upto < upto {
            self.add_judged(counted, &basis, (rooms, room), joined, upto)?;
            counted.upto = upto;
        }
        if let Some(reads) = reads {
            counted.tally.read(|thread| reads.up_to(thread));
            counted.read_upto = upto;
            if reads.up_to("") >= counted.upto {
                counted.unsaved = 0;
            }
        }
        entry.is_looked_at.store(true, Ordering::Relaxed);
        let unread = counted.tally.unread(upto);
        let bytes = counted.bytes();
        if counted.through.len() > MAX_THROUGH {
            *held = None;
        }
        drop(held);
        if bytes_before != bytes {
            self.tallies.0.has_grown(&key, &entry, bytes);
        }
        Some(unread)
    }

    /// The present rules and the present list of ignored users, if memory has them and a count depends on these.
    fn present(&self, basis: &BasisVersion, user: &User) -> Option<(Arc<UserRules>, Arc<Ignored>)> {
        let rules = self.rulesets.0.get(&user.nid).filter(|rules| rules.version == basis.rules)?;
        let ignored = self.data.ignored_in_memory(user.nid).filter(|ignored| ignored.version() == basis.ignored)?;
        Some((rules, ignored))
    }

    /// Adds the events since the last look, if somebody else has had all of them judged and none redacts another one.
    fn add_judged(
        &self,
        counted: &mut Counted,
        (rules, ignored): &(Arc<UserRules>, Arc<Ignored>),
        (rooms, room): (&Rooms, &Room),
        Joined { user, member }: Joined<'_>,
        upto: Position,
    ) -> Option<()> {
        let news = self.judged.find(room.nid, rules.compiled.class())?.at_once(room, counted.upto, upto)?;
        let mut verdicts = Vec::with_capacity(news.len());
        let (mut steps, mut name) = (0, None);
        for event in &news {
            steps += event.steps();
            if steps > MAX_STEPS || event.is_redaction() {
                return None;
            }
            let counts = !event.is_redacted && event.sender() != user.user_id && !ignored.contains(event.sender());
            let verdict = if counts && event.judgement.may_notify() {
                if name.is_none() && rules.compiled.asks_display_name(&event.judgement) {
                    name = Some(self.evaluator.display_name_in_memory(rooms, member.event_nid)?);
                }
                let glob = name.as_ref().and_then(|name| name.glob());
                rules.compiled.settle_at_once(&event.judgement, glob, (&mut steps, MAX_STEPS))?
            } else {
                Verdict::default()
            };
            let is_shown = !event.is_redacted && !ignored.contains(event.sender());
            let matters = is_shown && event.matters(verdict, user);
            if matters && event.known_conversation().is_none() {
                return None;
            }
            verdicts.push(matters.then_some(verdict));
        }
        counted.unsaved += news.len();
        for (event, verdict) in news.iter().zip(verdicts) {
            if let Some(verdict) = verdict {
                counted.add(event, verdict, event.known_conversation().flatten(), user);
            }
        }
        Some(())
    }
}
