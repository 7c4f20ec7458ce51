//! Keys of a new database, and changes that are refused.

use std::{fs, sync::Arc};

use ruma::owned_server_name;
use sabha_federation::key_file;
use tempfile::TempDir;

use super::*;
use crate::{clock::Clock, store::tests::NewDatabase};

const NOW: i64 = 1_700_000_000_000;

async fn load(new: &NewDatabase, data: &TempDir) -> Result<ServerSigner, SigningKeyError> {
    load_or_create(&new.db, data.path(), &owned_server_name!("sabha.test"), NOW).await
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The signing keys of a server that runs.
async fn running(new: &NewDatabase, data: &TempDir) -> SigningKeys {
    let signer = Arc::new(load(new, data).await.unwrap());
    SigningKeys::new(Arc::clone(&new.db), Clock::manual(NOW), signer, data.path())
}

#[tokio::test]
async fn a_key_file_that_is_there_before_the_first_start_is_used() {
    let (used, before) = (OwnKey::generate(), OwnKey::generate());
    let file = format!("{}{}", *key_file::write(&used), *key_file::write(&before));
    for new in NewDatabase::of_both_engines().await {
        let data = directory();
        fs::write(data.path().join(FILE), &file).unwrap();
        for _ in 0..2 {
            let signer = load(&new, &data).await.unwrap();
            assert_eq!(signer.key_id(), *used.key_id());
            assert_eq!(signer.key_at(before.key_id(), Some(NOW)), Some(before.public_key()));
            assert_eq!(signer.key_at(before.key_id(), Some(NOW + 1)), None);
            assert_eq!(fs::read_to_string(data.path().join(FILE)).unwrap(), file);
        }
    }
}

#[tokio::test]
async fn a_file_without_a_usable_key_is_refused_and_the_database_stays_without() {
    for new in NewDatabase::of_both_engines().await {
        let data = directory();
        fs::write(data.path().join(FILE), "ed25519 a_1 c2hvcnQ").unwrap();
        let refused = load(&new, &data).await.unwrap_err();
        assert!(matches!(refused, SigningKeyError::Damaged { source: KeyFileError::InvalidSeed, .. }));
        assert_eq!(stored(&new.db).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_server_has_no_more_keys_than_others_take() {
    for new in NewDatabase::of_both_engines().await {
        let data = directory();
        let keys = running(&new, &data).await;
        let former = (2..MAX_KEYS).map(|_| StoredKey::of(&OwnKey::generate(), NOW, Some(NOW)));
        save(&new.db, &former.collect::<Vec<_>>()).await.unwrap();
        keys.rotate().await.unwrap();
        assert_eq!(keys.list().await.unwrap().len(), MAX_KEYS);
        let file = fs::read(data.path().join(FILE)).unwrap();
        assert!(matches!(keys.rotate().await, Err(RotateError::TooMany)));
        assert_eq!(fs::read(data.path().join(FILE)).unwrap(), file);
        assert!(!data.path().join(NEXT_FILE).exists());
    }
}

#[tokio::test]
async fn without_a_database_or_a_place_for_the_file_the_key_stays() {
    for new in NewDatabase::of_both_engines().await {
        let data = directory();
        let keys = running(&new, &data).await;
        let file = fs::read(data.path().join(FILE)).unwrap();
        let before = keys.list().await.unwrap();
        // A directory is where the next file would be.
        fs::create_dir(data.path().join(NEXT_FILE)).unwrap();
        assert!(matches!(keys.rotate().await, Err(RotateError::File { .. })));
        fs::remove_dir(data.path().join(NEXT_FILE)).unwrap();
        // A file there may be the only one that has the key in use.
        fs::write(data.path().join(NEXT_FILE), "ed25519 a_last key").unwrap();
        assert!(matches!(keys.rotate().await, Err(RotateError::Unsettled)));
        assert_eq!(fs::read(data.path().join(NEXT_FILE)).unwrap(), b"ed25519 a_last key");
        fs::remove_file(data.path().join(NEXT_FILE)).unwrap();
        assert_eq!(keys.list().await.unwrap(), before);
        new.db.close().await;
        assert!(matches!(keys.rotate().await, Err(RotateError::Storage(_))));
        assert_eq!(fs::read(data.path().join(FILE)).unwrap(), file);
    }
}
