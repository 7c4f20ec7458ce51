//! Receiving: what an event of another server does to its room.
//!
//! [`sabha_federation::receive`] decides; here is what it needs of the server, and what becomes of its decisions.
//!
//! - [`reader`]: a room's events, graph and states, as the crate reads them.

pub mod reader;
