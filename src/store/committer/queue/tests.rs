use proptest::prelude::*;

use super::*;
use crate::store::{
    Conn, FilterNid, UserNid,
    committer::{Slot, Transaction},
    filters::FilterColumns,
};

/// A write at the end of `ticket`.
fn ready(ticket: Ticket) -> QueuePlace {
    let (answer, _) = oneshot::channel();
    QueuePlace::Ready(QueuedWrite { position: ticket.last, work: Work::Write(Write::default()), answer })
}

fn enter(queue: &mut Queue, count: usize) -> Ticket {
    queue.take_place(count, Health::Working).expect("there is room")
}

fn taken(queue: &mut Queue, most: usize) -> Vec<i64> {
    queue.take(most).iter().map(|queued| queued.position.0).collect()
}

#[test]
fn positions_follow_the_places() {
    let mut queue = Queue::after(Position(10));
    let tickets: Vec<_> = [1, 3, 0, 1].map(|count| enter(&mut queue, count)).into();
    let positions: Vec<_> = tickets.iter().map(|ticket| (ticket.first.0, ticket.last.0)).collect();
    // A write without events still has a position.
    assert_eq!(positions, [(11, 11), (12, 14), (15, 15), (16, 16)]);
}

#[test]
fn a_place_that_is_being_built_keeps_back_those_behind_it_and_not_those_before() {
    let mut queue = Queue::default();
    let [first, second, third] = [1, 1, 1].map(|count| enter(&mut queue, count));
    assert!(!queue.fill(third.number, &mut ready(third)), "the committer does not wait for it");
    assert!(taken(&mut queue, 9).is_empty());
    assert!(queue.fill(first.number, &mut ready(first)));
    assert_eq!(taken(&mut queue, 9), [1]);
    assert!(queue.fill(second.number, &mut ready(second)));
    assert_eq!(taken(&mut queue, 1), [2], "the limit");
    assert_eq!(taken(&mut queue, 9), [3]);
}

/// A transaction of many rows.
struct Large(usize);

impl Transaction for Large {
    type Output = ();

    fn rows(&self) -> usize {
        self.0
    }

    async fn run(&self, _: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn a_batch_ends_at_a_number_of_rows() {
    let row = || FilterColumns { user_nid: UserNid(1), filter_id: FilterNid(1), json: "{}".into() }.row();
    let write = |rows| Work::Write(Write::new((0..rows).map(|_| row()).collect()));
    let transaction = |rows| Work::Transaction(Box::new(Slot::new(Large(rows), oneshot::channel().0)));
    let mut queue = Queue::default();
    let works = [
        transaction(MAX_BATCH_ROWS - 2),
        write(1),
        // It goes over the limit, and is the last one.
        transaction(250),
        write(1),
        // It is more than a batch by itself.
        transaction(2 * MAX_BATCH_ROWS),
        write(1),
        write(MAX_BATCH_ROWS),
        write(0),
    ];
    for work in works {
        let ticket = enter(&mut queue, 1);
        let (answer, _) = oneshot::channel();
        queue.fill(ticket.number, &mut QueuePlace::Ready(QueuedWrite { position: ticket.last, work, answer }));
    }
    let batches: Vec<_> = (0..5).map(|_| taken(&mut queue, 99)).collect();
    assert_eq!(batches, [vec![1, 2, 3], vec![4, 5], vec![6, 7], vec![8], vec![]]);
}

#[test]
fn a_place_that_was_given_up_lets_the_next_ones_pass() {
    let mut queue = Queue::default();
    let [first, second, third] = [2, 1, 1].map(|count| enter(&mut queue, count));
    queue.fill(second.number, &mut ready(second));
    queue.fill(third.number, &mut QueuePlace::Void);
    assert!(queue.fill(first.number, &mut QueuePlace::Void));
    assert_eq!(taken(&mut queue, 9), [3], "the positions of the first stay unused");
    assert_eq!(enter(&mut queue, 1).first, Position(5));
}

#[test]
fn places_that_are_being_built_count_for_the_limit() {
    let mut queue = Queue::default();
    let tickets: Vec<_> = (0..MAX_QUEUE).map(|_| enter(&mut queue, 1)).collect();
    assert!(matches!(queue.take_place(1, Health::Working), Err(Error::Overloaded)));
    queue.fill(tickets[0].number, &mut ready(tickets[0]));
    assert_eq!(taken(&mut queue, 9), [1]);
    assert_eq!(enter(&mut queue, 1).first.0, 1 + MAX_QUEUE as i64, "a refused write takes no position");
}

#[test]
fn a_queue_that_stops_ends_once_the_last_place_is_taken() {
    let mut queue = Queue::default();
    let ticket = enter(&mut queue, 1);
    queue.stop();
    assert!(matches!(queue.take_place(1, Health::Waiting), Err(Error::Stopping)));
    assert_eq!((taken(&mut queue, 9).len(), queue.has_ended()), (0, None), "one is being built");
    queue.fill(ticket.number, &mut ready(ticket));
    assert_eq!((taken(&mut queue, 9).len(), queue.has_ended()), (1, Some(Intake::Stopping)));
}

#[test]
fn a_closed_queue_leaves_late_writes_to_their_builders() {
    let mut queue = Queue::default();
    let [first, second] = [1, 1].map(|count| enter(&mut queue, count));
    queue.fill(first.number, &mut ready(first));
    assert_eq!(queue.close().len(), 2);
    let mut late = ready(second);
    assert!(!queue.fill(second.number, &mut late));
    assert!(matches!(late, QueuePlace::Ready(_)));
    assert_eq!(queue.has_ended(), Some(Intake::Stopping));
}

#[test]
fn a_queue_of_a_follower_takes_nothing_and_goes_on_at_the_next_position_of_its_term() {
    let mut queue = Queue::after(Position(4));
    let left = enter(&mut queue, 1);
    queue.follow();
    assert!(matches!(queue.take_place(1, Health::Working), Err(Error::NotLeader)));
    assert_eq!(queue.has_ended(), None, "one is being built");
    queue.fill(left.number, &mut ready(left));
    assert_eq!((taken(&mut queue, 9), queue.has_ended()), (vec![5], Some(Intake::Following)));
    queue.open(Position(20));
    assert_eq!(enter(&mut queue, 2).first, Position(21));
    queue.stop();
    queue.follow();
    queue.open(Position(30));
    assert!(matches!(queue.take_place(1, Health::Working), Err(Error::Stopping)), "a stop is for ever");
}

proptest! {
    #[test]
    fn every_ready_write_is_taken_once_and_in_order(
        writes in prop::collection::vec((0..3_usize, any::<bool>(), any::<u16>()), 0..40),
        most in 1..5_usize,
    ) {
        let mut queue = Queue::default();
        let tickets: Vec<_> = writes.iter().map(|(count, ..)| enter(&mut queue, *count)).collect();
        let mut order: Vec<usize> = (0..writes.len()).collect();
        order.sort_by_key(|index| writes[*index].2);
        let mut found = Vec::new();
        for (done, index) in order.iter().enumerate() {
            let ticket = tickets[*index];
            let mut filled = if writes[*index].1 { ready(ticket) } else { QueuePlace::Void };
            queue.fill(ticket.number, &mut filled);
            found.extend(taken(&mut queue, most));
            let building = order[done + 1..].iter().min();
            let limit = building.map_or(i64::MAX, |index| tickets[*index].first.0);
            prop_assert!(found.iter().all(|position| *position < limit));
        }
        while !queue.places.is_empty() {
            found.extend(taken(&mut queue, most));
        }
        let is_ready = tickets.iter().zip(&writes).filter(|(_, (_, is_ready, _))| *is_ready);
        let wanted: Vec<_> = is_ready.map(|(ticket, _)| ticket.last.0).collect();
        prop_assert_eq!(found, wanted);
    }
}
