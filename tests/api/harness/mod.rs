//! The harness of the tests: a server for each test, clients that check every answer, both engines.
//!
//! ```ignore
//! both_engines! {
//!     async fn repeating_a_transaction_id_sends_nothing_new(server: TestServer) {
//!         let alice = server.register("alice").await;
//!         let room = alice.create_room(json!({})).await;
//!         let first = alice.send_text(&room, "txn1", "hello").await;
//!         assert_eq!(first, alice.send_text(&room, "txn1", "hello").await);
//!     }
//! }
//! ```

mod client;
#[macro_use]
mod engine;
pub mod follower;
mod parks;
pub mod patience;
pub mod postgres;
pub mod proxy;
pub mod routes;
mod server;
pub mod shapes;
mod spans;
pub mod steps;

pub use self::{
    client::{Client, Response, v3},
    engine::{Engine, FromEngine},
    parks::Parks,
    server::{Builder, PASSWORD, TestServer},
    spans::Spans,
};
