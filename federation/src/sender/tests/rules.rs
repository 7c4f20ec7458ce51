//! Each rule of the sender alone: effects by hand, without a network.

mod backlog;
mod delivery;
mod failing;
mod hand;
