//! Memory follows each commit, and is told of each write that failed.

use std::sync::{Arc, Mutex};

use super::*;
use crate::store::log::{LogEntry, Memory, Touch};

/// Memory that runs a function for each touch of an entry.
struct Follow<F>(F);

impl<F: Fn(Position, &Touch) + Send + Sync> Memory for Follow<F> {
    fn apply(&self, entry: &LogEntry) {
        entry.touches.iter().for_each(|(at, touch)| self.0(*at, touch));
    }

    fn forget(&self, _: Position) {}
}

/// The name of what ran, the position of its write, and the position that was visible then.
type Said = (&'static str, Position, Position);

#[tokio::test]
async fn memory_changes_in_the_order_of_positions_and_before_they_are_visible() {
    let opened = Opened::sqlite().await;
    let said: Arc<Mutex<Vec<Said>>> = Arc::default();
    let mut waiting = Vec::new();
    let committer = opened.db.committer();
    let tell = |what| {
        let (said, committer) = (Arc::clone(&said), committer.clone());
        move |position| lock(&said).push((what, position, committer.published()))
    };
    let wake = tell("wake");
    committer.on_published(move || wake(Position::BEFORE_ALL));
    let follow = tell("memory");
    committer.remember(Arc::new(Follow(move |at, _: &Touch| follow(at))));
    for id in 1..=3 {
        let committed = committer.submit::<Error>(2, |_| Ok(Write::new(vec![row(id)]).touching(Touch::Job)));
        waiting.push(committed.expect("there is room"));
    }
    let before = committer.published();
    let positions: Vec<Position> = waiting.iter().map(Committed::position).collect();
    assert_eq!(positions, [2, 4, 6].map(|step| Position(before.0 + step)));
    for committed in waiting {
        committed.wait().await.expect("nothing is wrong with it");
    }
    let said = lock(&said).clone();
    let expected: Vec<_> = positions.iter().map(|at| ("memory", *at, before)).collect();
    assert_eq!(said[..3], expected, "no position is visible before all of the batch is in memory");
    assert_eq!(said[3..], [("wake", Position::BEFORE_ALL, positions[2])], "who is woken sees the position");
}

/// The positions of the touches that memory was told of, and whether their write was stored.
#[derive(Default)]
struct Told(Mutex<Vec<(Position, bool)>>);

impl Memory for Told {
    fn apply(&self, entry: &LogEntry) {
        lock(&self.0).extend(entry.touches.iter().map(|(at, _)| (*at, true)));
    }

    fn forget(&self, _: Position) {}

    fn abandoned(&self, touches: &[(Position, Touch)]) {
        lock(&self.0).extend(touches.iter().map(|(at, _)| (*at, false)));
    }
}

#[tokio::test]
async fn memory_is_told_once_of_each_write_whether_it_was_stored() {
    for opened in Opened::both().await {
        let told = Arc::new(Told::default());
        let committer = opened.db.committer();
        committer.remember(Arc::<Told>::clone(&told));
        let broken = Lineage::default();
        let submit = |rows: Vec<Row>, lineage: Option<&Lineage>| {
            let mut write = Write::new(rows).touching(Touch::Job);
            if let Some(lineage) = lineage {
                write = write.in_lineage(lineage.clone());
            }
            committer.submit::<Error>(2, |_| Ok(write))
        };
        let stored = submit(vec![row(1)], None).expect("there is room");
        // The database refuses the second row of a key.
        let refused = submit(vec![row(1)], Some(&broken)).expect("there is room");
        let built_on_it = submit(vec![row(2)], Some(&broken)).expect("there is room");
        let nul = FilterColumns { user_nid: UserNid(USER), filter_id: FilterNid(3), json: "\0".into() }.row();
        let nul = submit(vec![nul], None);
        assert!(matches!(nul, Err(Error::HoldsNul)));
        let other = submit(vec![row(4)], None).expect("there is room");
        let mut expected: Vec<_> = [(&stored, true), (&refused, false), (&built_on_it, false), (&other, true)]
            .map(|(committed, is_stored)| (committed.position(), is_stored))
            .to_vec();
        // The write with a NUL had the place before the last one.
        expected.push((Position(other.position().0 - 2), false));
        stored.wait().await.expect("nothing is wrong with it");
        refused.wait().await.expect_err("its row is there");
        built_on_it.wait().await.expect_err("its chain is broken");
        other.wait().await.expect("nothing is wrong with it");
        expected.sort_unstable();
        let mut told = lock(&told.0).clone();
        told.sort_unstable();
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn memory_that_cannot_follow_a_commit_ends_the_committer() {
    for opened in Opened::both().await {
        let committer = opened.db.committer();
        opened.submit(vec![row(1)]).wait().await.expect("nothing is wrong with it");
        let published = committer.published();
        committer.remember(Arc::new(Follow(|_, _: &Touch| panic!("a mistake in what changes memory"))));
        let write = Write::new(vec![row(2)]).touching(Touch::Job);
        let panicking = committer.submit::<Error>(1, |_| Ok(write)).expect("there is room");
        let next = opened.submit(vec![row(3)]);
        assert!(matches!(panicking.wait().await, Err(Error::Stopping)));
        assert!(matches!(next.wait().await, Err(Error::Stopping)));
        assert_eq!(committer.ended().await, Ended::MemoryBehind);
        assert_eq!(committer.published(), published, "readers would skip what memory does not hold");
        opened.db.close().await;
        let stored = opened.reopen().await.stored().await;
        assert!(stored.starts_with(&[1, 2]), "it was committed: {stored:?}");
    }
}
