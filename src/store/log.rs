//! STUB of the codec branch.
mod touch;
use super::Position;
pub use touch::{Touch, WordKind};
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub after: Position,
    pub pos: Position,
    pub at_ms: i64,
    pub touches: Vec<(Position, Touch)>,
}
pub fn encode(entry: &LogEntry) -> Vec<u8> {
    format!("{entry:?}").into_bytes()
}
pub fn decode(_: &[u8]) -> Result<LogEntry, super::Error> {
    Err(super::Error::damaged("log", "stub"))
}
