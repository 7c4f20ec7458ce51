//! The memory of one device: its latest requests, its hashes and its bytes.

use super::*;

fn event_id(number: usize) -> OwnedEventId {
    EventId::parse(format!("$event{number}")).expect("an event ID")
}

#[test]
fn the_latest_requests_are_always_in_memory_and_never_many_more() {
    let mut txns = DeviceTxns::default();
    for number in 0..3 * KEPT_PER_DEVICE + 7 {
        txns.remember("send".into(), number.to_string().into(), event_id(number));
        let kept = |number: usize| {
            let id = ("send".into(), number.to_string().into());
            let by_txn = txns.latest.by_txn.get(&id).or_else(|| txns.previous.by_txn.get(&id));
            let of_event = |done: &Done| done.by_event.get(&event_id(number)).cloned();
            assert_eq!(by_txn.is_some(), of_event(&txns.latest).or_else(|| of_event(&txns.previous)).is_some());
            by_txn == Some(&event_id(number))
        };
        let oldest = (number + 1).saturating_sub(KEPT_PER_DEVICE);
        assert!(kept(oldest) && kept(number), "{number}");
        assert!(txns.latest.by_txn.len() + txns.previous.by_txn.len() <= 2 * KEPT_PER_DEVICE, "{number}");
    }
}

#[test]
fn a_device_takes_more_memory_with_its_ids_and_never_more_than_a_bound() {
    let mut txns = DeviceTxns { hashes: Some(HashSet::new()), ..DeviceTxns::default() };
    assert_eq!(txns.bytes(), DEVICE_BYTES);
    let mut largest = 0;
    for number in 0..3 * KEPT_PER_DEVICE {
        txns.remember("send".into(), number.to_string().into(), event_id(number));
        largest = txns.bytes().max(largest);
    }
    assert!((100_000..1_000_000).contains(&largest), "{largest}");
}

#[test]
fn a_device_with_too_many_hashes_has_none() {
    let mut txns = DeviceTxns { hashes: Some(HashSet::new()), ..DeviceTxns::default() };
    for number in 0..HASHES_PER_DEVICE {
        txns.remember("send".into(), number.to_string().into(), event_id(number));
    }
    assert!(txns.hashes.as_ref().is_some_and(|hashes| hashes.contains(&hash("send", "0"))));
    txns.remember("send".into(), "one more".into(), event_id(0));
    assert_eq!(txns.hashes, None, "from here on the database is asked");
}

#[test]
fn what_is_remembered_while_a_device_is_read_stays() {
    let stored = || vec![("send".to_owned(), "old".to_owned(), "$old".to_owned())];
    let mut txns = DeviceTxns::default();
    txns.remember("send".into(), "new".into(), event_id(1));
    txns.add_stored(stored());
    for txn in ["old", "new"] {
        assert!(txns.latest.by_txn.contains_key(&("send".into(), txn.into())), "{txn}");
        assert!(txns.hashes.as_ref().is_some_and(|hashes| hashes.contains(&hash("send", txn))), "{txn}");
    }
    let mut txns = DeviceTxns::default();
    for number in 0..=KEPT_PER_DEVICE {
        txns.remember("send".into(), number.to_string().into(), event_id(number));
    }
    txns.add_stored(stored());
    assert_eq!(txns.hashes, None, "too many came for all to be known");
}
