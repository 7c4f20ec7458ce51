//! What the tests share.

pub mod routes;
pub mod shapes;
