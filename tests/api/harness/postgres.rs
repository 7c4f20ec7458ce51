//! A private PostgreSQL cluster, where its programs are installed: in a temporary directory, on a unix socket.
//!
//! There is one cluster for each test process, started when first needed, and one database for each test. A small shell
//! beside it waits for the end of its standard input, a pipe from this process. The pipe ends with this process,
//! whatever the cause; then the shell removes the cluster. The tests inside `src/store` include this file too.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// Ends the cluster with us. The shell gives its background processes an empty input, so only `cat` holds the pipe.
const WATCH: &str = r#""$@" & cluster=$!; cat >/dev/null; kill -QUIT $cluster; wait $cluster; rm -rf "$CLUSTER_DIR""#;

/// A new, empty database, which is dropped with this value.
pub struct PostgresDatabase {
    pub url: String,
    name: String,
}

impl PostgresDatabase {
    /// Creates a database. `None` where PostgreSQL is not installed; then a line says that the test is skipped.
    ///
    /// # Panics
    /// When PostgreSQL is installed but does not start, or is not installed and `SABHA_REQUIRE_POSTGRES=1`.
    pub async fn create() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cluster = Cluster::shared()?;
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        cluster.execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        Some(Self { url: cluster.url(&name), name })
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        if let Some(cluster) = Cluster::shared() {
            // If the dropper has ended, the database is removed with the cluster.
            let _ = cluster.dropper.send(std::mem::take(&mut self.name));
        }
    }
}

struct Cluster {
    dir: PathBuf,
    dropper: mpsc::Sender<String>,
    /// The shell, whose pipe keeps the cluster running.
    _watch: Child,
}

impl Cluster {
    fn shared() -> Option<&'static Self> {
        static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
        let cluster = CLUSTER.get_or_init(|| find_programs().map(|bin| Cluster::start(&bin))).as_ref();
        if cluster.is_none() {
            let required = env::var("SABHA_REQUIRE_POSTGRES").is_ok_and(|value| value == "1");
            assert!(!required, "SABHA_REQUIRE_POSTGRES=1, but PostgreSQL was not found");
            println!("skipped: PostgreSQL not found");
        }
        cluster
    }

    fn start(bin: &Path) -> Self {
        // The directory is kept here: the shell removes it after the cluster has ended.
        let dir = tempfile::Builder::new().prefix("sabha-pg-").tempdir().expect("a temporary directory").keep();
        let user = Unprivileged::find();
        if let Some(user) = &user {
            chown(&dir, Some(user.uid), Some(user.gid)).expect("root may give its directory away");
        }
        let data = dir.join("data");
        let made = command(&user, &bin.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(&data)
            .current_dir("/")
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));

        let server = command(&user, &bin.join("postgres"));
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "sh"]).arg(server.get_program()).args(server.get_args()).arg("-D").arg(&data);
        for setting in [
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "autovacuum=off",
            "max_connections=300",
            "shared_buffers=64MB",
            "listen_addresses=",
            "lc_messages=C",
        ] {
            watch.args(["-c", setting]);
        }
        watch.arg("-k").arg(&dir).env("CLUSTER_DIR", &dir).current_dir("/");
        // A process group of its own keeps the terminal's signals away: only the end of the pipe counts.
        watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut watch = watch.spawn().expect("sh runs");
        let mut log = BufReader::new(watch.stderr.take().expect("it is piped")).lines();
        let mut said = String::new();
        loop {
            let line =
                log.next().unwrap_or_else(|| panic!("PostgreSQL did not start:\n{said}")).expect("its log is text");
            said.push_str(&line);
            said.push('\n');
            if line.contains("ready to accept connections") {
                break;
            }
            assert!(!line.contains("FATAL"), "PostgreSQL did not start:\n{said}");
        }
        // Reads on, because a full pipe would block the server.
        std::thread::spawn(move || log.for_each(drop));
        Self { dropper: dropper(dir.clone()), dir, _watch: watch }
    }

    fn url(&self, database: &str) -> String {
        url(&self.dir, database)
    }

    async fn execute(&self, sql: &str) {
        execute(&self.dir, sql).await;
    }
}

fn url(dir: &Path, database: &str) -> String {
    format!("postgres:///{database}?host={}&user=postgres", dir.display())
}

async fn execute(dir: &Path, sql: &str) {
    let mut conn = PgConnection::connect(&url(dir, "postgres")).await.expect("the cluster is running");
    conn.execute(AssertSqlSafe(sql)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    conn.close().await.expect("the cluster is running");
}

/// Drops databases on a separate thread, because a test ends without time to wait.
fn dropper(dir: PathBuf) -> mpsc::Sender<String> {
    let (sender, names) = mpsc::channel::<String>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for name in names {
            runtime.block_on(execute(&dir, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        }
    });
    sender
}

/// The user that runs PostgreSQL when we are root, which it refuses to run as.
struct Unprivileged {
    uid: u32,
    gid: u32,
}

impl Unprivileged {
    fn find() -> Option<Self> {
        if id(&["-u"])? != 0 {
            return None;
        }
        let user = ["postgres", "nobody"].into_iter().find(|user| id(&["-u", user]).is_some());
        let user = user.expect("a user postgres or nobody, to run PostgreSQL as");
        Some(Self { uid: id(&["-u", user])?, gid: id(&["-g", user])? })
    }
}

fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn command(user: &Option<Unprivileged>, program: &Path) -> Command {
    let Some(Unprivileged { uid, gid }) = user else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned(), "--".to_owned()]);
    command.arg(program);
    command
}

/// Finds the directory with `initdb` and `postgres`: on the path, or where distributions install them, the newest
/// first.
fn find_programs() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    places.extend(versions.into_iter().map(|(_, path)| path));
    places.push("/usr/local/bin".into());
    places.into_iter().find(|place| ["initdb", "postgres"].iter().all(|program| place.join(program).is_file()))
}
