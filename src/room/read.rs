//! Reading: what of a room's history and state one user may see, and in which order.

pub mod circumstances;
pub mod delta;
pub mod pages;
pub mod relations;
mod scan;
pub(crate) mod stripped;
pub mod threads;
pub mod timeline;
pub mod viewer;
pub mod visibility;
pub(crate) mod whole;
