//! Writes answers as bytes, so that rendered events are copied instead of being parsed and serialized again.

use std::{fmt::Display, io::Write as _};

use crate::room::event::write_string;

/// A position in an object to go back to.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    bytes: usize,
    first: bool,
}

/// A JSON object that is being appended to `out`.
pub struct Object<'a> {
    pub out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Begins a field. The bytes that are appended to `out` next are its value.
    pub fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        write_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    pub fn string(&mut self, name: &str, value: &str) {
        write_string(self.key(name), value);
    }

    /// Writes a token, or another text that needs no escaping, without making a string of it first.
    pub fn token(&mut self, name: &str, token: impl Display) {
        let out = self.key(name);
        write!(out, "\"{token}\"").expect("writing to memory succeeds");
    }

    pub fn raw(&mut self, name: &str, json: &str) {
        self.key(name).extend_from_slice(json.as_bytes());
    }

    /// Writes a field that holds `{"events":[…]}`.
    pub fn events(&mut self, name: &str, write: impl FnOnce(&mut Array<'_>)) {
        let out = self.key(name);
        out.extend_from_slice(br#"{"events":"#);
        let mut array = Array::begin(out);
        write(&mut array);
        array.end();
        self.out.push(b'}');
    }

    pub fn mark(&self) -> Mark {
        Mark { bytes: self.out.len(), first: self.first }
    }

    /// Removes every field that was begun after `mark`, whether it was finished or not.
    pub fn back_to(&mut self, mark: Mark) {
        self.out.truncate(mark.bytes);
        self.first = mark.first;
    }

    /// Ends the object. Returns whether it has any field.
    pub fn end(self) -> bool {
        self.out.push(b'}');
        !self.first
    }
}

/// A JSON array that is being appended to `out`.
pub struct Array<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Array<'a> {
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'[');
        Self { out, first: true }
    }

    /// Begins an item. The bytes that are appended to the returned buffer are its value.
    pub fn item(&mut self) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out
    }

    pub fn raw(&mut self, json: &str) {
        self.item().extend_from_slice(json.as_bytes());
    }

    pub fn end(self) {
        self.out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_arrays_come_out_as_json() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.string("a", "x\"y");
        object.events("e", |events| {
            events.raw("1");
            events.raw("{}");
        });
        object.end();
        assert_eq!(String::from_utf8_lossy(&out), r#"{"a":"x\"y","e":{"events":[1,{}]}}"#);
    }

    #[test]
    fn what_is_taken_back_leaves_nothing() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        let beginning = object.mark();
        object.string("a", "b");
        object.back_to(beginning);
        object.raw("c", "1");
        let mark = object.mark();
        Object::begin(object.key("d")).key("unfinished");
        object.back_to(mark);
        object.raw("e", "2");
        let mark = object.mark();
        assert!(!Object::begin(object.key("f")).end(), "it is empty");
        object.back_to(mark);
        assert!(object.end());
        assert_eq!(String::from_utf8_lossy(&out), r#"{"c":1,"e":2}"#);
    }
}
