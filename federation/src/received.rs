//! Events that other servers sent: the checks of their form, their signatures and their hashes.
//!
//! **Not yet**: nothing of it is here.
