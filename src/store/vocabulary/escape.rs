//! The stored form of words that other servers choose: event types, state keys, and IDs of events that we may never see.
//!
//! JSON allows U+0000 in such a word, and PostgreSQL stores no text with one. A refused word would make the states of a room
//! differ between the engines, and from the states on other servers. So both engines store it escaped. Memory and events
//! have the word itself, and only the rows and the statements have its stored form.
//!
//! Promise: each word has its own stored form, without U+0000. A word without U+0000 and U+10FFFE is its own stored form.

use std::{borrow::Cow, sync::Arc};

use crate::store::{Error, rows::Value};

/// Begins an escape. Unicode has no character for this number, so hardly any word changes.
const ESCAPE: char = '\u{10FFFE}';

/// The escapes of U+0000 and of [`ESCAPE`], after the first character.
const NUL: char = '0';
const ITSELF: char = '1';

/// A text column with a word. Its value is the stored form.
#[derive(Debug, Clone)]
pub(crate) struct Word(pub(crate) Arc<str>);

impl From<&str> for Word {
    fn from(word: &str) -> Self {
        Self(word.into())
    }
}

impl From<Word> for Value {
    fn from(Word(word): Word) -> Self {
        let stored = match escape(&word) {
            // Not copied, because memory keeps the same text.
            Cow::Borrowed(_) => None,
            Cow::Owned(stored) => Some(stored.into()),
        };
        Self::Text(stored.unwrap_or(word))
    }
}

/// The stored form of a word, to look for it in a statement.
pub(in crate::store) fn escape(word: &str) -> Cow<'_, str> {
    if !word.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(word);
    }
    let mut stored = String::with_capacity(word.len() + 16);
    for character in word.chars() {
        match character {
            '\0' => stored.extend([ESCAPE, NUL]),
            ESCAPE => stored.extend([ESCAPE, ITSELF]),
            other => stored.push(other),
        }
    }
    Cow::Owned(stored)
}

/// The word with this stored form.
///
/// # Errors
/// [`Error::Damaged`] if no word has it.
pub(in crate::store) fn unescape(stored: String) -> Result<String, Error> {
    if !stored.contains(ESCAPE) {
        return Ok(stored);
    }
    let mut word = String::with_capacity(stored.len());
    let mut characters = stored.chars();
    while let Some(character) = characters.next() {
        word.push(match character {
            ESCAPE => match characters.next() {
                Some(NUL) => '\0',
                Some(ITSELF) => ESCAPE,
                _ => return Err(Error::damaged("word", "an unknown escape")),
            },
            other => other,
        });
    }
    Ok(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words in which the characters that matter are frequent.
    fn words() -> impl Strategy<Value = String> {
        let character = prop_oneof![Just('\0'), Just(ESCAPE), Just(NUL), Just(ITSELF), any::<char>()];
        prop::collection::vec(character, 0..12).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn a_word_is_read_back_from_its_stored_form(word in words()) {
            let stored = escape(&word).into_owned();
            prop_assert!(!stored.contains('\0'));
            prop_assert_eq!(stored == word, !word.contains(['\0', ESCAPE]));
            prop_assert_eq!(unescape(stored).unwrap(), word);
        }

        #[test]
        fn a_stored_form_that_can_be_read_is_the_one_of_its_word(stored in words()) {
            if let Ok(word) = unescape(stored.clone()) && !stored.contains('\0') {
                prop_assert_eq!(escape(&word), stored);
            }
        }

        #[test]
        fn two_words_have_two_stored_forms(one in words(), other in words()) {
            prop_assert_eq!(escape(&one) == escape(&other), one == other);
        }
    }

    #[test]
    fn the_stored_forms_never_change() {
        let check = |word: &str, stored: &str| assert_eq!(escape(word), stored);
        check("", "");
        check("m.room.member", "m.room.member");
        check("a\0b", "a\u{10FFFE}0b");
        check("\u{10FFFE}", "\u{10FFFE}1");
        check("\u{10FFFE}0", "\u{10FFFE}10");
        check("\u{10FFFF}\u{FFFE}", "\u{10FFFF}\u{FFFE}");
    }

    #[test]
    fn a_text_that_is_no_stored_form_is_damage() {
        for damaged in ["\u{10FFFE}", "a\u{10FFFE}", "\u{10FFFE}2", "\u{10FFFE}\u{10FFFE}0"] {
            assert!(unescape(damaged.to_owned()).unwrap_err().is_damage(), "{damaged:?}");
        }
    }

    #[test]
    fn a_row_shares_an_ordinary_word_with_memory() {
        let word: Arc<str> = "m.room.member".into();
        let Value::Text(stored) = Value::from(Word(Arc::clone(&word))) else { panic!("it is a text") };
        assert!(Arc::ptr_eq(&stored, &word));
        assert_eq!(Value::from(Word("a\0b".into())), Value::Text("a\u{10FFFE}0b".into()));
    }
}
