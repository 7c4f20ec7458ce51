//! The sender as a whole: each rule alone, and a fake network in which everything goes wrong that can.

mod driver;
mod peers;
mod random;
mod rules;
