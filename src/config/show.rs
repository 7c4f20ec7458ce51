//! The effective configuration as a listing: each key, its value and where that comes from.
