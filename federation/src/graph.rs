//! The graph of a room's events: forward extremities, the events that an event covers, places in the timeline, auth
//! chains, and redactions.
//!
//! **Not yet**: nothing of it is here.
