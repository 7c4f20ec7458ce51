//! Starting on existing data: refused starts, and data that must not be lost.

use std::path::Path;

use sabha::{
    admin_api::{self, Operation},
    report::Report,
    server::StartError,
};
use sabha_federation::{OwnKey, key_file};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use crate::harness::{Engine, TestServer};

/// Returns the single line that a person sees when the server does not start.
async fn refusal(server: &TestServer) -> String {
    let error: StartError = server.try_restart().await.err().expect("it is refused");
    let line = Report(&error).to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

both_engines! {
    async fn a_restart_keeps_the_signing_key(mut server: TestServer) {
        let key_id = server.app().signer.key_id();
        assert!(server.app().db.is_new());
        server.restart().await;
        assert_eq!(server.app().signer.key_id(), key_id);
        assert!(!server.app().db.is_new());
    }

    async fn another_server_name_is_refused(mut server: TestServer) {
        server.stop().await;
        server.config_mut().server_name = ruma::owned_server_name!("other.test");
        let line = refusal(&server).await;
        assert!(line.contains("set server_name = \"sabha.test\", or use another database"), "{line}");
    }

    async fn a_missing_signing_key_is_refused_and_not_replaced(mut server: TestServer) {
        let key_id = server.app().signer.key_id().to_string();
        server.stop().await;
        let path = server.data_dir().join("signing.key");
        let kept = std::fs::read(&path).expect("it was made");
        std::fs::remove_file(&path).expect("it is ours");
        let line = refusal(&server).await;
        assert!(line.contains("is missing") && line.contains(&key_id) && line.contains("restore that file"), "{line}");
        assert!(!path.exists());
        std::fs::write(&path, kept).expect("restored");
        server.restart().await;
    }

    async fn the_key_of_another_server_is_refused(mut server: TestServer) {
        let other = TestServer::start().await;
        server.stop().await;
        std::fs::copy(other.data_dir().join("signing.key"), server.data_dir().join("signing.key")).expect("copied");
        let line = refusal(&server).await;
        assert!(line.contains("but this database is signed with"), "{line}");
    }

    async fn an_interrupted_change_of_the_signing_key_is_finished_or_taken_back(mut server: TestServer) {
        let (file, next) = (server.data_dir().join("signing.key"), server.data_dir().join("signing.key.next"));
        let read = |path: &Path| std::fs::read(path).expect("it is there");
        let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).expect("it is ours");
        let old = read(&file);
        admin_api::carry_out(server.app(), Operation::RotateKey).await.expect("a new key");
        let key_id = server.app().signer.key_id();
        let new = read(&file);
        assert!(old != new && !next.exists());
        let other = key_file::write(&OwnKey::generate());

        // The files before the start. The new key must be in use afterwards.
        type Files<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);
        let crashes: [Files<'_>; 6] = [
            // The commit has come, but the file has not taken its place.
            (Some(&old), Some(&new)),
            (None, Some(&new)),
            (Some(b"half a f"), Some(&new)),
            // The commit of a later change has not come.
            (Some(&new), Some(other.as_bytes())),
            (Some(&new), Some(b"half a f")),
            (Some(&new), Some(b"")),
        ];
        for (at_file, at_next) in crashes {
            server.stop().await;
            for (path, bytes) in [(&file, at_file), (&next, at_next)] {
                match bytes {
                    Some(bytes) => write(path, bytes),
                    None => std::fs::remove_file(path).expect("it is there"),
                }
            }
            server.restart().await;
            assert_eq!(server.app().signer.key_id(), key_id);
            assert!(read(&file) == new && !next.exists());
        }

        // A backup from before the change is refused, and nothing is touched.
        for at_next in [None, Some(&b"half a f"[..]), Some(other.as_bytes())] {
            server.stop().await;
            write(&file, &old);
            at_next.iter().for_each(|bytes| write(&next, bytes));
            let line = refusal(&server).await;
            assert!(line.contains("which was replaced by") && line.contains(key_id.as_str()), "{line}");
            assert!(read(&file) == old && next.exists() == at_next.is_some());
            write(&file, &new);
            server.restart().await;
        }
    }

    async fn a_newer_schema_is_refused(engine: Engine) {
        let mut server = TestServer::builder().engine(engine).start().await;
        server.stop().await;
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
            VALUES (9999, 'from the future', TRUE, '', 0)";
        let url = server.config_mut().database_url();
        match engine {
            Engine::Sqlite => {
                let mut conn = SqliteConnection::connect(url.expose()).await.expect("it is closed now");
                sqlx::query(newer).execute(&mut conn).await.expect("inserted");
            }
            Engine::Postgres => {
                let mut conn = PgConnection::connect(url.expose()).await.expect("it runs");
                sqlx::query(newer).execute(&mut conn).await.expect("inserted");
            }
        }
        let line = refusal(&server).await;
        assert!(line.contains("written by a newer release of Sabha (schema 9999;"), "{line}");
    }

    async fn a_schema_of_another_build_is_refused_with_advice(engine: Engine) {
        let mut server = TestServer::builder().engine(engine).start().await;
        server.stop().await;
        let url = server.config_mut().database_url();
        match engine {
            Engine::Sqlite => {
                let mut conn = SqliteConnection::connect(url.expose()).await.expect("it is closed now");
                sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'").execute(&mut conn).await.expect("changed");
            }
            Engine::Postgres => {
                let mut conn = PgConnection::connect(url.expose()).await.expect("it runs");
                sqlx::query("UPDATE _sqlx_migrations SET checksum = '\\x00'").execute(&mut conn).await.expect("changed");
            }
        }
        let line = refusal(&server).await;
        assert!(line.contains("another build of Sabha") && line.contains("or use another database"), "{line}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_advice_and_left_alone() {
    let damage = async |offset: usize| {
        let mut server = TestServer::start().await;
        server.register("alice").await;
        server.stop().await;
        let url = server.config_mut().database_url();
        // Moves the whole write-ahead log into the database file.
        let mut conn = SqliteConnection::connect(url.expose()).await.expect("it is closed now");
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut conn).await.expect("nobody else reads");
        conn.close().await.expect("closed");
        let path = server.data_dir().join("sabha.db");
        let mut bytes = std::fs::read(&path).expect("it was made");
        bytes[offset..].fill(0x5a);
        std::fs::write(&path, &bytes).expect("it is ours");
        let line = refusal(&server).await;
        assert!(line.contains("the database file is damaged") && line.contains("the latest backup"), "{line}");
        assert!(std::fs::read(&path).expect("it is there") == bytes, "it is left as it is");
    };
    // Damages the whole file, and then everything but its first page.
    damage(0).await;
    damage(4096).await;
}

both_engines! {
    async fn a_second_process_on_the_same_database_is_refused(mut server: TestServer) {
        let line = refusal(&server).await;
        assert!(line.contains("another process is using this database") && line.ends_with("stop it first"), "{line}");
        server.restart().await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read_the_signing_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = TestServer::start().await;
    let mode = std::fs::metadata(server.data_dir().join("signing.key")).expect("it was made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[cfg(unix)]
#[tokio::test]
async fn files_that_others_could_read_are_closed_to_them_at_the_start() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let mut server = TestServer::start().await;
    let data_dir = server.data_dir().to_owned();
    let open_to_others = || {
        let paths = fs::read_dir(&data_dir).expect("a directory").map(|entry| entry.expect("an entry").path());
        let mode = |path: &std::path::PathBuf| fs::metadata(path).expect("it is there").permissions().mode();
        let open = paths.chain([data_dir.clone()]).filter(|path| mode(path) & 0o077 != 0);
        open.map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    server.register("alice").await;
    assert_eq!(open_to_others(), [""; 0], "what is made is private, whatever the umask of the process");
    for name in ["sabha.db", "sabha.db-wal", "sabha.db-shm", "sabha.db.lock", "signing.key", "control.sock"] {
        assert!(data_dir.join(name).exists(), "{name}");
    }
    server.stop().await;
    let set = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    set(&data_dir, 0o755);
    for entry in fs::read_dir(&data_dir).expect("a directory") {
        set(&entry.expect("an entry").path(), 0o644);
    }
    server.restart().await;
    server.register("bob").await;
    assert_eq!(open_to_others(), [""; 0]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_socket_in_the_data_directory_stays_reachable() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let mut server = TestServer::start().await;
    server.stop().await;
    let (data_dir, socket) = (server.data_dir().to_owned(), server.data_dir().join("public.sock"));
    let listener = sabha::config::Listener { unix: Some(socket), ..sabha::config::Listener::default() };
    server.config_mut().listeners.push(listener);
    fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o777)).expect("ours");
    server.restart().await;
    let mode = fs::metadata(&data_dir).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755, "others come through, and put nothing there");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let mut server = TestServer::start().await;
    server.stop().await;
    let nowhere = "postgres://sabha:hunter2@127.0.0.1:1/sabha".to_owned();
    server.config_mut().database.url = Some(nowhere.try_into().expect("a database URL"));
    let data_dir = server.data_dir().join("never");
    server.config_mut().data_dir = data_dir.clone();
    let line = refusal(&server).await;
    assert!(line.contains("the database could not be opened") && !line.contains("hunter2"), "{line}");
    assert!(!data_dir.exists(), "nothing is left of this start");
}

#[tokio::test]
async fn a_database_that_does_not_let_the_server_in_says_what_to_change_and_leaves_no_directory() {
    let Some(mut server) = TestServer::builder().engine(Engine::Postgres).try_start().await else { return };
    server.stop().await;
    let url = server.config_mut().database_url().expose().to_owned();
    let data_dir = server.data_dir().join("never");
    server.config_mut().data_dir = data_dir.clone();
    for (right, wrong, advice) in [
        ("user=postgres", "user=nobody", "write the right user and password into database.url"),
        ("/test_", "/no_test_", "create it, or write its name into database.url"),
    ] {
        assert!(url.contains(right), "{url}");
        let wrong = url.replacen(right, wrong, 1);
        server.config_mut().database.url = Some(wrong.try_into().expect("a database URL"));
        let line = refusal(&server).await;
        assert!(line.contains(advice) && !line.contains("at line"), "{line}");
        assert!(!data_dir.exists(), "nothing is left of this start");
    }
}
