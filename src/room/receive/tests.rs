//! Events of other servers in rooms of this one.
