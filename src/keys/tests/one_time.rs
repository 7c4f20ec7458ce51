//! One-time and fallback keys: uploading them, and handing each out once.

use super::*;

/// Claims a key of the device, and returns its ID.
async fn claim(keys: &Keys, device: &LocalDevice) -> Option<String> {
    let wanted: Wanted = BTreeMap::from([(
        device.user_id().to_owned(),
        BTreeMap::from([(id_of(device).to_owned(), OneTimeKeyAlgorithm::from(SIGNED))]),
    )]);
    let mut claimed = keys.claim(&wanted).await.expect("the database works");
    let key = claimed.keys.remove(device.user_id())?.remove(id_of(device))?;
    key.into_keys().next().map(|id| id.as_str().trim_start_matches("signed_curve25519:").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_claims_hand_out_each_key_once_in_the_order_of_upload() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = Arc::new(fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await);
    // The order of these IDs is the reverse of the order of upload.
    let ids: Vec<String> = (0..60).map(|number| format!("K{:02}", 99 - number)).collect();
    for (number, id) in ids.iter().enumerate() {
        let key = one_time_key(u8::try_from(number).expect("less than 256"));
        upload(&fixture.keys, &alice, &[(id, key)], &[]).await.expect("it is new");
    }
    let claim_many = async |fixture: &Fixture, count: usize| {
        let claims: Vec<_> = (0..count)
            .map(|_| {
                let (keys, alice) = (Arc::clone(&fixture.keys), Arc::clone(&alice));
                tokio::spawn(async move { claim(&keys, &alice).await })
            })
            .collect();
        let mut claimed = Vec::new();
        for claim in claims {
            claimed.push(claim.await.expect("no claim panics").expect("there are enough keys"));
        }
        claimed.sort_unstable_by(|a, b| b.cmp(a));
        claimed
    };
    assert_eq!(claim_many(&fixture, 20).await, ids[..20]);
    let fixture = fixture.reopen().await;
    assert_eq!(claim_many(&fixture, 20).await, ids[20..40]);
    assert_eq!(fixture.keys.counts(alice.device_nid).await.expect("counts").one_time[SIGNED], 20);

    // A client that does not know of the claims uploads everything again.
    for (number, id) in ids.iter().enumerate() {
        let key = one_time_key(u8::try_from(number).expect("less than 256"));
        assert_eq!(upload(&fixture.keys, &alice, &[(id, key)], &[]).await.expect("it is taken"), 20);
    }
    assert_eq!(claim_many(&fixture, 20).await, ids[40..]);
    assert_eq!(claim(&fixture.keys, &alice).await, None);
}

#[tokio::test]
async fn the_same_id_with_another_key_is_refused_as_a_whole() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let keys = &fixture.keys;
    assert_eq!(upload(keys, &alice, &[("A", one_time_key(1))], &[]).await.expect("new"), 1);
    assert_eq!(upload(keys, &alice, &[("A", one_time_key(1))], &[]).await.expect("the same"), 1);
    let refused = upload(keys, &alice, &[("A", one_time_key(2)), ("B", one_time_key(3))], &[]).await;
    assert!(matches!(refused, Err(UploadError::KeyChanged { .. })), "{refused:?}");
    assert_eq!(keys.counts(alice.device_nid).await.expect("counts").one_time[SIGNED], 1);
}

#[tokio::test]
async fn a_device_holds_no_more_keys_than_the_limit() {
    let fixture = Fixture::new(|config| config.limits.one_time_keys_per_device = 2).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    upload(&fixture.keys, &alice, &[("A", one_time_key(1)), ("B", one_time_key(2))], &[]).await.expect("two");
    let refused = upload(&fixture.keys, &alice, &[("C", one_time_key(3))], &[]).await;
    assert!(matches!(refused, Err(UploadError::TooManyKeys { limit: 2 })), "{refused:?}");
    assert_eq!(upload(&fixture.keys, &alice, &[("A", one_time_key(1))], &[]).await.expect("nothing new"), 2);
}

#[tokio::test]
async fn the_fallback_key_is_handed_out_when_nothing_else_is_left() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let keys = &fixture.keys;
    upload(keys, &alice, &[("A", one_time_key(1))], &[("F", one_time_key(2))]).await.expect("new");
    let unused = async || keys.counts(alice.device_nid).await.expect("counts").unused_fallback.clone();
    assert_eq!(unused().await, [SIGNED]);
    assert_eq!(claim(keys, &alice).await.as_deref(), Some("A"));
    assert_eq!(unused().await, [SIGNED]);
    for _ in 0..2 {
        assert_eq!(claim(keys, &alice).await.as_deref(), Some("F"));
        assert_eq!(unused().await, [""; 0]);
    }
    // Uploading a used key again leaves it used. Another key is unused.
    upload(keys, &alice, &[], &[("F", one_time_key(2))]).await.expect("the same");
    assert_eq!(unused().await, [""; 0]);
    upload(keys, &alice, &[], &[("G", one_time_key(3))]).await.expect("another");
    assert_eq!(unused().await, [SIGNED]);
}

#[tokio::test]
async fn a_device_has_keys_of_few_algorithms() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let own = (alice.user_id(), id_of(&alice));
    let key = |algorithm: usize| {
        let id = OwnedOneTimeKeyId::try_from(format!("signed_a{algorithm}:A").as_str()).expect("an ID");
        BTreeMap::from([(id, Raw::from_json_string(one_time_key(1).to_string()).expect("JSON"))])
    };
    for algorithm in 0..=MAX_ALGORITHMS {
        let one_time = Upload::check(own, None, &key(algorithm), &BTreeMap::new()).expect("a good key");
        let fallback = Upload::check(own, None, &BTreeMap::new(), &key(algorithm)).expect("a good key");
        for upload in [one_time, fallback] {
            let uploaded = fixture.keys.upload(&alice, upload).await;
            assert_eq!(uploaded.is_ok(), algorithm < MAX_ALGORITHMS, "{algorithm}: {uploaded:?}");
        }
    }
}

#[tokio::test]
async fn an_upload_has_few_one_time_keys() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let key = |number: usize| {
        let id = OwnedOneTimeKeyId::try_from(format!("{SIGNED}:{number}").as_str()).expect("an ID");
        (id, Raw::from_json_string(one_time_key(1).to_string()).expect("JSON"))
    };
    for (count, is_taken) in [(MAX_ONE_TIME_KEYS, true), (MAX_ONE_TIME_KEYS + 1, false)] {
        let keys = (0..count).map(key).collect();
        let checked = Upload::check((alice.user_id(), id_of(&alice)), None, &keys, &BTreeMap::new());
        assert_eq!(checked.is_ok(), is_taken, "{count}");
    }
}
