//! An error with all of its causes, in one line, for the log and for operators.

use std::{error::Error, fmt};

/// Displays an error and its causes: `the disk of the database is full: no space left on device`.
pub struct Report<'a>(pub &'a dyn Error);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some libraries repeat their cause in their own message.
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        f.write_str(&text.replace('\n', " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("the file was not read")]
        Cause(#[source] std::io::Error),
        #[error("it failed: {0}")]
        Repeated(#[source] std::io::Error),
    }

    #[test]
    fn causes_stand_in_one_line_and_none_twice() {
        let cause = || std::io::Error::other("no\nspace");
        assert_eq!(Report(&Failure::Cause(cause())).to_string(), "the file was not read: no space");
        assert_eq!(Report(&Failure::Repeated(cause())).to_string(), "it failed: no space");
    }
}
