//! Push rules ([spec]): their changes by clients, and their evaluation.
//!
//! Next: [`defaults`]; [`changes`], the changes that clients may make, and [`carry_over`], those of a room upgrade;
//! [`compiled`], [`judgement`] and [`evaluate`], the evaluation of events.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules

pub(super) mod carry_over;
mod changes;
pub mod compiled;
mod defaults;
pub mod evaluate;
pub mod judgement;

pub use changes::{RuleError, content, global, merged, put, remove, set_actions, set_enabled};
