//! The engine: the part of the Docker API that Complement uses, over local processes.
//!
//! Listens on loopback only, and gives servers only loopback addresses. However the engine ends, SIGKILL included, the
//! [`janitor`] ends every process that it started and removes their files; the logs stay. Requests are in [`api`], the
//! state they work on in [`world`].

mod addresses;
mod api;
mod archive;
mod container;
pub mod janitor;
mod labels;
mod postgres;
mod process;
mod world;

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use self::{janitor::Janitor, postgres::Postgres, process::Spawner, world::World};
use crate::Failure;

#[derive(clap::Args)]
pub struct Arguments {
    /// Loopback address and port to listen on. The first line on standard output is the address in use.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Folder of launchers. Image `NAME` is started by `NAME.sh` in it.
    #[arg(long)]
    launchers: PathBuf,
    /// Folder for the logs of servers, one file per container.
    #[arg(long)]
    logs: PathBuf,
    /// Folder for the data of containers and images. It must not exist, and is removed at the end.
    #[arg(long)]
    work: PathBuf,
    /// Give each container a database in a PostgreSQL cluster of our own.
    #[arg(long)]
    postgres: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Complement uses plain HTTP without authentication, and its requests start programs.
    if !arguments.listen.ip().is_loopback() {
        return Err(format!("{} is not a loopback address", arguments.listen).into());
    }
    // A single thread: the kernel sends the parent-death signal when the thread that spawned the child ends, so it must
    // stay.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if getppid() != parent {
        return Err("the parent process has ended".into());
    }

    let launchers = fs::canonicalize(&arguments.launchers)?;
    fs::create_dir_all(&arguments.logs)?;
    fs::create_dir(&arguments.work)?;
    let work = fs::canonicalize(&arguments.work)?;
    let mut janitor = Janitor::start(&work)?;
    let served = async {
        let postgres = match arguments.postgres {
            true => Some(Postgres::start(&work, &mut janitor).await?),
            false => None,
        };
        let spawner = Spawner::new(janitor.list(), fs::canonicalize(&arguments.logs)?).await?;
        let listener = TcpListener::bind(arguments.listen).await?;
        announce(listener.local_addr()?)?;
        let router = api::router(World::new(launchers, work.clone(), spawner, postgres));
        tokio::select! {
            ended = axum::serve(listener, router).into_future() => ended?,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok::<_, Failure>(())
    }
    .await;
    // The end is the same as after a SIGKILL: only the janitor ends processes and removes files.
    janitor.finish().await?;
    served
}

fn announce(address: SocketAddr) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{address}")?;
    stdout.flush()
}

/// Converts a path to text. All paths come from arguments and from names that we chose.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
