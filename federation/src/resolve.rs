//! State resolution: one state from the states of several branches.
//!
//! **Not yet**: nothing of it is here.
