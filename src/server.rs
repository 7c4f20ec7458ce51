//! The running process: builds the services, serves requests, and stops in order.
//!
//! Promise: nothing is served before everything is checked, and every answered write is committed before the process
//! ends.
//!
//! Reading order: [`build`] makes the services from the configuration, [`run`](mod@run) starts and stops a server,
//! [`sockets`] binds its listeners, [`routers`] defines what each listener serves, [`sweeps`] runs the periodic
//! cleanup, [`consumers`] follows the commit log, [`control`] lets the command line talk to a running server.

pub mod build;

pub mod run;
pub mod sockets;
pub mod start;

mod announce;
mod consumers;
mod current;
mod forwarded;
pub(crate) mod jobs;
mod request;
mod routers;
mod sweeps;

pub mod control;

mod landing;
mod setup;
mod stage;
mod well_known;

pub mod health;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod private_files;
pub mod signals;

pub use routers::routes;
pub use run::{Server, run};
pub use start::StartError;
