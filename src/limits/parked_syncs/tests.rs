//! Which syncs give way, and when.

use std::sync::atomic::AtomicUsize;

use tokio::{
    task::JoinSet,
    time::{timeout, timeout_at},
};

use super::*;
use crate::{config::ByteSize, filter::Definition};

const ALICE: UserNid = UserNid(1);
const PHONE: DeviceNid = DeviceNid(1);

/// A third of the filters that one user's syncs may have.
const THIRD: u64 = MAX_FILTER_BYTES / 3;

fn parked() -> ParkedSyncs {
    ParkedSyncs::new(&Limits::default())
}

fn device(number: usize) -> DeviceNid {
    DeviceNid(i64::try_from(number).expect("few"))
}

/// A filter that takes a little more than this.
fn filter(bytes: u64) -> Arc<SyncFilter> {
    let name = "x".repeat(usize::try_from(bytes).expect("little"));
    let json = format!(r#"{{"presence":{{"types":["{name}"]}}}}"#);
    Arc::new(SyncFilter::new(&Definition::read(&json).expect("a filter")).expect("one entry"))
}

/// Returns the time from which the sync is to be answered, if it has been displaced since it was last asked.
async fn gives_way_at(place: &ParkedSync<'_>) -> Option<Instant> {
    tokio::select! {
        biased;
        at = place.displaced() => Some(at),
        () = std::future::ready(()) => None,
    }
}

async fn gives_way(place: &ParkedSync<'_>) -> bool {
    gives_way_at(place).await.is_some()
}

#[tokio::test(start_paused = true)]
async fn the_oldest_of_a_device_gives_way() {
    let parked = parked();
    let all = SyncFilter::of_all();
    let other = parked.park_device(ALICE, device(2), &all);
    let first = parked.park_device(ALICE, PHONE, &all);
    let rest: Vec<_> = (1..MAX_FOR_DEVICE).map(|_| parked.park_device(ALICE, PHONE, &all)).collect();
    assert!(!gives_way(&first).await);
    let _newest = parked.park_device(ALICE, PHONE, &all);
    assert!(gives_way(&first).await);
    assert!(!gives_way(&rest[0]).await && !gives_way(&other).await);
    drop(rest);
    let _again = parked.park_device(ALICE, PHONE, &all);
    assert!(!gives_way(&other).await, "those that ended have left their places");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_of_a_user_gives_way_and_nobody_elses() {
    let parked = parked();
    let all = SyncFilter::of_all();
    let bobs = parked.park_device(UserNid(2), PHONE, &all);
    let places: Vec<_> = (0..MAX_FOR_USER).map(|number| parked.park_device(ALICE, device(number), &all)).collect();
    assert!(!gives_way(&places[0]).await);
    let newest = parked.park_device(ALICE, device(MAX_FOR_USER), &all);
    assert!(gives_way(&places[0]).await);
    assert!(!gives_way(&places[1]).await && !gives_way(&bobs).await);
    drop((places, bobs));
    assert_eq!(lock(&parked.users).len(), 1);
    drop(newest);
    assert!(lock(&parked.users).is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_syncs_whose_filters_take_memory_give_way_to_large_filters() {
    let parked = parked();
    let park = |filter: &Arc<SyncFilter>| parked.park_device(ALICE, PHONE, filter);
    let small = park(&SyncFilter::of_all());
    let bobs = parked.park_device(UserNid(2), PHONE, &filter(THIRD));
    let (one, two) = (filter(THIRD), filter(THIRD));
    let (first, second) = (park(&one), park(&two));
    // A filter counts once, however many wait with it.
    let shared = park(&one);
    assert!(!gives_way(&first).await);
    let third = park(&filter(THIRD));
    // The oldest filter goes, with all its syncs, because one of them alone frees nothing.
    assert!(gives_way(&first).await && gives_way(&shared).await);
    assert!(!gives_way(&second).await);
    // A sync that gives way counts no longer.
    let again = park(&two);
    assert!(!gives_way(&second).await);
    let largest = park(&filter(2 * MAX_FILTER_BYTES));
    assert!(gives_way(&second).await && gives_way(&third).await && gives_way(&again).await);
    assert!(!gives_way(&largest).await, "one may always wait");
    assert!(!gives_way(&small).await && !gives_way(&bobs).await);
}

#[tokio::test(start_paused = true)]
async fn the_largest_filter_goes_first() {
    let parked = parked();
    let park = |filter: &Arc<SyncFilter>| parked.park_device(ALICE, PHONE, filter);
    let (small, large) = (filter(THIRD), filter(THIRD + 10_000));
    let (first, second) = (park(&small), park(&large));
    let newest = park(&filter(THIRD + 20_000));
    assert!(gives_way(&second).await);
    assert!(!gives_way(&first).await && !gives_way(&newest).await);
    drop(newest);
    // A newer sync with the largest filter keeps it.
    let third = park(&filter(THIRD));
    let newest = park(&large);
    assert!(gives_way(&first).await);
    assert!(!gives_way(&third).await && !gives_way(&newest).await);
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_gives_way_is_answered_some_time_after_its_arrival() {
    let parked = parked();
    let park = || parked.park_device(ALICE, PHONE, &SyncFilter::of_all());
    let began = Instant::now();
    let old = park();
    tokio::time::advance(3 * GIVE_WAY_AFTER).await;
    let others: Vec<_> = (0..MAX_FOR_DEVICE).map(|_| park()).collect();
    assert_eq!(gives_way_at(&old).await, Some(began + GIVE_WAY_AFTER), "it is over");
    let _newest = park();
    assert_eq!(gives_way_at(&others[0]).await, Some(began + 4 * GIVE_WAY_AFTER));
    assert!(!gives_way(&others[0]).await, "it is displaced once");
}

/// The number of syncs in a minute, if all these clients ask again at once when they are answered without news.
async fn syncs_in_a_minute(clients: Vec<(DeviceNid, Arc<SyncFilter>)>) -> usize {
    let (parked, count) = (Arc::new(parked()), Arc::new(AtomicUsize::new(0)));
    let mut asking = JoinSet::new();
    for (device, filter) in clients {
        let (parked, count) = (Arc::clone(&parked), Arc::clone(&count));
        let ask = async move {
            loop {
                let place = parked.park_device(ALICE, device, &filter);
                count.fetch_add(1, Ordering::Relaxed);
                let mut at = place.displaced().await;
                while let Ok(sooner) = timeout_at(at, place.displaced()).await {
                    at = sooner;
                }
                drop(place);
                // The way to the client and back.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        asking.spawn(timeout(Duration::from_secs(60), ask));
    }
    for ended in asking.join_all().await {
        assert!(ended.is_err(), "the minute is over");
    }
    count.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn clients_that_displace_each_other_ask_rarely() {
    let check = async |clients: Vec<(DeviceNid, Arc<SyncFilter>)>, least: usize| {
        let (number, syncs) = (clients.len(), syncs_in_a_minute(clients).await);
        let of_one = 60 / usize::try_from(GIVE_WAY_AFTER.as_secs()).expect("some seconds");
        assert!(syncs <= number * of_one, "{number} clients: {syncs} syncs");
        assert!(syncs >= least, "{number} clients: only {syncs} syncs, so none displaced another");
    };
    let all = SyncFilter::of_all();
    check(vec![(PHONE, Arc::clone(&all)); 2 * MAX_FOR_DEVICE], 3 * MAX_FOR_DEVICE).await;
    let of_user = (0..2 * MAX_FOR_USER).map(|number| (device(number), Arc::clone(&all)));
    check(of_user.collect(), 3 * MAX_FOR_USER).await;
    check((0..5).map(|number| (device(number), filter(THIRD))).collect(), 10).await;
    check((0..MAX_FOR_DEVICE).map(|number| (device(number), Arc::clone(&all))).collect(), MAX_FOR_DEVICE).await;
}

#[tokio::test(start_paused = true)]
async fn more_than_a_bounded_number_of_syncs_that_give_way_are_answered_at_once() {
    let parked = parked();
    let all = SyncFilter::of_all();
    let few = GIVING_WAY * MAX_FOR_USER;
    let places: Vec<_> = (0..few + MAX_FOR_DEVICE).map(|_| parked.park_device(ALICE, PHONE, &all)).collect();
    let now = Instant::now();
    assert_eq!(gives_way_at(&places[0]).await, Some(now + GIVE_WAY_AFTER));
    let _newest = parked.park_device(ALICE, PHONE, &all);
    assert_eq!(gives_way_at(&places[0]).await, Some(now), "told again");
    assert_eq!(gives_way_at(&places[1]).await, Some(now + GIVE_WAY_AFTER));
    assert_eq!(lock(&parked.users)[&ALICE].giving_way.len(), few);
    drop(places);
}

#[tokio::test(start_paused = true)]
async fn more_than_a_bounded_size_of_filters_that_give_way_are_answered_at_once() {
    let parked = parked();
    let park = |_| parked.park_device(ALICE, PHONE, &filter(MAX_FILTER_BYTES - 10_000));
    let places: Vec<_> = (0..=GIVING_WAY).map(park).collect();
    let now = Instant::now();
    assert_eq!(gives_way_at(&places[0]).await, Some(now + GIVE_WAY_AFTER));
    let _newest = park(0);
    assert_eq!(gives_way_at(&places[0]).await, Some(now));
    assert_eq!(gives_way_at(&places[1]).await, Some(now + GIVE_WAY_AFTER));
}

#[test]
fn the_largest_filters_always_fit() {
    let max_filter_bytes = |filter_bytes| {
        let limits = Limits { filter_bytes, ..Limits::default() };
        ParkedSyncs::new(&limits).max_filter_bytes
    };
    assert_eq!(max_filter_bytes(Limits::default().filter_bytes), MAX_FILTER_BYTES);
    assert_eq!(max_filter_bytes(ByteSize::kib(1)), MAX_FILTER_BYTES);
    assert_eq!(max_filter_bytes(ByteSize::mib(1)), 4 << 20);
}
