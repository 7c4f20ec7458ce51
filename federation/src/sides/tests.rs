//! Sides against a model that keeps each state whole.

mod branches;
mod states;
mod world;
