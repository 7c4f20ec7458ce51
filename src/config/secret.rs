//! Secrets that an operator writes. Only [`Secret::expose`] shows them.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use super::keys::{Leaf, Setting, Shape};

/// The mask that replaces a secret in listings.
const MASK: &str = "***";

/// A secret text that is not empty. `Debug`, `Display` and serde show a mask.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The secret itself. It must not get into a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Err("a secret is not empty") } else { Ok(Self(Zeroizing::new(text))) }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Setting for Secret {
    const SHAPE: Shape = Leaf { secret: true, ..Leaf::new("a secret", "a secret text in quotes") }.shape();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_shows_the_secret() {
        let secret = Secret::try_from("hunter2".to_owned()).expect("not empty");
        let json = serde_json::to_string(&secret).expect("text");
        for shown in [format!("{secret}"), format!("{secret:?}"), json] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(secret.expose(), "hunter2");
        assert!(Secret::try_from(String::new()).is_err());
    }
}
