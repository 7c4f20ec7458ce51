//! Backups of room keys.

use super::*;

fn room_key(session: &str, first_message_index: i64) -> RoomKey {
    let json = json!({
        "first_message_index": first_message_index, "forwarded_count": 0, "is_verified": false, "session_data": {},
    });
    let raw: Raw<()> = Raw::from_json_string(json.to_string()).expect("JSON");
    RoomKey::check(ruma::room_id!("!room:example.org"), session, &raw).expect("a good key")
}

async fn new_backup(fixture: &Fixture, user: UserNid) -> i64 {
    let algorithm: Raw<()> = Raw::from_json_string(r#"{"algorithm":"a","auth_data":{}}"#.to_owned()).expect("JSON");
    fixture.keys.create_backup(user, Algorithm::check(&algorithm).expect("it is good")).await.expect("created")
}

/// Sets the size in bytes of a version's room keys.
struct SetBytes(UserNid, i64, i64);

impl Transaction for SetBytes {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        key_backup::set_count(conn, self.0, self.1, 1, (1, self.2)).await
    }
}

#[tokio::test]
async fn the_bytes_of_all_backups_of_a_user_are_bounded() {
    let fixture = Fixture::new(|_| {}).await;
    let user = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await.user.nid;
    let keys = &fixture.keys;
    let full = new_backup(&fixture, user).await;
    fixture.db.committer().transact(SetBytes(user, full, MAX_BACKUP_BYTES)).await.expect("set");
    let version = new_backup(&fixture, user).await;
    let refused = keys.put_backup_keys(user, version, vec![room_key("a", 5)]).await;
    assert!(matches!(refused, Err(BackupError::Full)), "{refused:?}");
    keys.delete_backup(user, full).await.expect("deleted");
    keys.put_backup_keys(user, version, vec![room_key("a", 5)]).await.expect("there is room again");
}

#[tokio::test]
async fn a_large_backup_is_stored_and_deleted_piece_by_piece() {
    let fixture = Fixture::new(|_| {}).await;
    let user = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await.user.nid;
    let keys = &fixture.keys;
    let version = new_backup(&fixture, user).await;
    let many = |index: i64| (0..1_001).map(|number| room_key(&format!("s{number}"), index)).collect::<Vec<_>>();
    let bytes = async || {
        key_backup::totals(&mut fixture.db.read().await.expect("a reader").conn(), user).await.expect("read").bytes
    };
    let before = fixture.db.committer().published();
    assert_eq!(keys.put_backup_keys(user, version, many(5)).await.expect("stored").count, 1_001);
    assert!(fixture.db.committer().published().0 > before.0 + 4, "in several commits");
    let stored = bytes().await;
    // Uploading equal or worse keys changes nothing.
    for index in [5, 6] {
        assert_eq!(keys.put_backup_keys(user, version, many(index)).await.expect("taken").count, 1_001);
    }
    // Better keys of the same size replace the stored ones.
    assert_eq!(keys.put_backup_keys(user, version, many(4)).await.expect("stored").count, 1_001);
    assert_eq!(bytes().await, stored);
    let part = Part::Session("!room:example.org".to_owned(), "s0".to_owned());
    assert_eq!(keys.delete_backup_keys(user, version, part).await.expect("deleted").count, 1_000);
    let deleted = keys.delete_backup_keys(user, version, Part::Room("!room:example.org".to_owned())).await;
    assert!(matches!(deleted, Ok(Stored { count: 0, .. })), "{deleted:?}");
    assert_eq!((bytes().await, count_rows(&fixture.db, "key_backup_session").await), (0, 0));
    // A deleted version is gone at once, and its keys a little later.
    keys.put_backup_keys(user, version, many(4)).await.expect("stored");
    keys.delete_backup(user, version).await.expect("deleted");
    assert!(matches!(keys.backup_page(user, version, &Part::All, None).await, Err(BackupError::NoSuchVersion)));
    crate::store::leftovers::sweep(&fixture.db).await.expect("swept");
    assert_eq!(count_rows(&fixture.db, "key_backup_session").await, 0);
}

#[tokio::test]
async fn a_deletion_of_many_keys_leaves_others_their_turns() {
    let fixture = Fixture::new(|_| {}).await;
    let user = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await.user.nid;
    let keys = &fixture.keys;
    let version = new_backup(&fixture, user).await;
    let many = (0..500).map(|number| room_key(&format!("s{number}"), 5)).collect();
    keys.put_backup_keys(user, version, many).await.expect("stored");
    let turn = keys.turns.take(user).await.expect("free");
    let other = async {
        let _turn = keys.turns.take(user).await.expect("few wait");
        keys.backup(user, version).await.expect("it is there").count
    };
    let (deleted, left, ()) =
        tokio::join!(keys.delete_backup_keys(user, version, Part::All), other, async { drop(turn) });
    assert_eq!(left, 300, "between two commits");
    assert_eq!(deleted.expect("deleted").count, 0);
}
