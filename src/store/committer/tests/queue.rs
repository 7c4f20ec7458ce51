//! The queue: its bound, and the places of those that are still being built.

use super::*;

#[tokio::test]
async fn a_full_queue_refuses_and_takes_again_once_it_is_shorter() {
    let opened = Opened::sqlite().await;
    let waiting: Vec<_> = (0..MAX_QUEUE).map(|_| opened.submit(Vec::new())).collect();
    let one_more = || opened.db.committer().submit::<Error>(1, |_| Ok(Write::new(vec![row(1)])));
    assert!(matches!(one_more(), Err(Error::Overloaded)));
    for committed in waiting {
        committed.wait().await.expect("it was taken");
    }
    one_more().expect("there is room again").wait().await.expect("nothing is wrong with it");
    assert_eq!(opened.stored().await, [1]);
}

#[tokio::test]
async fn a_slow_builder_keeps_back_those_behind_it_and_not_those_before() {
    for opened in Opened::both().await {
        let before = opened.submit(vec![row(1)]);
        let committer = opened.db.committer().clone();
        let (entered, is_in_its_place) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel();
        let slow = std::thread::spawn(move || {
            committer.submit::<Error>(1, |_| {
                entered.send(()).expect("the test waits");
                released.recv().expect("the test says when");
                Ok(Write::new(vec![row(2)]))
            })
        });
        is_in_its_place.recv().expect("there is room");
        // Others build meanwhile.
        let behind = opened.submit(vec![row(3)]);
        let positions = [before.position(), behind.position()];
        assert_eq!(positions[1].0, positions[0].0 + 2);
        assert_eq!(before.wait().await.expect("nothing is wrong with it"), positions[0]);
        assert_eq!(opened.stored().await, [1]);
        opened.db.committer().stop();
        release.send(()).expect("it waits");
        let slow = slow.join().expect("it does not panic").expect("it has a place");
        slow.wait().await.expect("it was queued before the stop");
        behind.wait().await.expect("it was queued before the stop");
        assert_eq!(opened.db.committer().published(), positions[1]);
        opened.db.close().await;
        assert_eq!(opened.reopen().await.stored().await, [1, 2, 3]);
    }
}
