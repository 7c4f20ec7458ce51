//! The declaration of a section of the configuration: once, with its documentation, default and bounds.
//!
//! [`section!`] makes from one declaration the struct, its `Default`, its serde form (unknown keys are errors) and a
//! [`Table`] that describes every key. [`super::check`] uses that description to check a file key by key and to name
//! the file in its messages. [`super::reference`] uses it to write the reference for operators. So neither can forget a
//! key.

use std::net::SocketAddr;
use std::path::PathBuf;

use ruma::{OwnedServerName, RoomVersionId};

/// A section: its purpose and its keys.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// The section's doc comment, a line each.
    pub doc: &'static [&'static str],
    pub fields: &'static [Field],
}

/// One key of a section.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub key: &'static str,
    /// The field's doc comment, a line each.
    pub doc: &'static [&'static str],
    pub shape: Shape,
    /// The smallest and the largest value allowed, as an operator writes them.
    pub bounds: fn() -> Option<(String, String)>,
    /// Whether a value has the right type and lies within the bounds.
    pub check: fn(&toml::Value) -> Fit,
}

/// The result of [`Field::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Fits,
    WrongType,
    OutOfBounds,
}

/// The kind of value that a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// One value, or with `many` a list of them.
    Leaf { leaf: Leaf, many: bool },
    /// A `[section]`.
    Table(Table),
    /// Any number of `[[sections]]`.
    Tables(Table),
}

/// A kind of value.
#[derive(Debug, Clone, Copy)]
pub struct Leaf {
    /// Completes the message "… is not": `a duration`.
    pub kind: &'static str,
    /// Completes the message "write": `a number with its unit, such as "30s"`.
    pub write: &'static str,
    /// Whether it is a secret, which no message and no listing may repeat.
    pub secret: bool,
}

/// A type that can be used in the configuration.
pub trait Setting: serde::Serialize + serde::de::DeserializeOwned {
    const SHAPE: Shape;
}

impl Leaf {
    pub const fn new(kind: &'static str, write: &'static str) -> Self {
        Self { kind, write, secret: false }
    }

    pub const fn shape(self) -> Shape {
        Shape::Leaf { leaf: self, many: false }
    }
}

impl<T: Setting> Setting for Option<T> {
    const SHAPE: Shape = T::SHAPE;
}

impl<T: Setting> Setting for Vec<T> {
    const SHAPE: Shape = match T::SHAPE {
        Shape::Leaf { leaf, .. } => Shape::Leaf { leaf, many: true },
        Shape::Table(table) | Shape::Tables(table) => Shape::Tables(table),
    };
}

/// Declares that a type is written as one value, with its name and what to write.
macro_rules! leaf {
    ($($ty:ty: $kind:literal, $write:literal;)+) => {
        $(impl $crate::config::keys::Setting for $ty {
            const SHAPE: $crate::config::keys::Shape = $crate::config::keys::Leaf::new($kind, $write).shape();
        })+
    };
}

leaf! {
    bool: "true or false", "true or false";
    u32: "a whole number", "a whole number such as 4";
    f64: "a number", "a number such as 0.5";
    String: "text", "text in quotes";
    PathBuf: "a path", "a path in quotes, such as \"/var/lib/sabha\"";
    SocketAddr: "an address with a port", "an IP address and a port, such as \"127.0.0.1:8008\" or \"[::1]:8008\"";
    OwnedServerName: "a server name", "a host name without https://, such as \"example.com\"";
    RoomVersionId: "a room version", "a room version in quotes, such as \"12\"";
}

/// The bounds of a key as text for people, if it has any.
macro_rules! bounds {
    () => {
        None
    };
    ($low:expr, $high:expr) => {
        Some(($low.to_string(), $high.to_string()))
    };
}

/// Compares a value with its bounds, if it has any. NaN is out of all bounds.
macro_rules! fit {
    ($value:ident: $ty:ty) => {{
        let _: $ty = $value;
        $crate::config::keys::Fit::Fits
    }};
    ($value:ident: $ty:ty, $low:expr, $high:expr) => {
        if ($low..=$high).contains::<$ty>(&$value) {
            $crate::config::keys::Fit::Fits
        } else {
            $crate::config::keys::Fit::OutOfBounds
        }
    };
}

/// Declares a section: `pub key: Type [lowest => highest] = default,`. The bounds are optional.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            $($(#[doc = $field_doc:literal])+ pub $field:ident: $ty:ty $([$low:expr => $high:expr])? = $default:expr,)+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $field_doc])+ pub $field: $ty,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::config::keys::Setting for $name {
            const SHAPE: $crate::config::keys::Shape = $crate::config::keys::Shape::Table($crate::config::keys::Table {
                doc: &[$($doc),+],
                fields: &[$($crate::config::keys::Field {
                    key: stringify!($field),
                    doc: &[$($field_doc),+],
                    shape: <$ty as $crate::config::keys::Setting>::SHAPE,
                    bounds: || $crate::config::keys::bounds!($($low, $high)?),
                    check: |value| match <$ty as serde::Deserialize>::deserialize(value.clone()) {
                        Err(_) => $crate::config::keys::Fit::WrongType,
                        Ok(value) => $crate::config::keys::fit!(value: $ty $(, $low, $high)?),
                    },
                }),+],
            });
        }
    };
}

/// Declares a choice between words: `pub enum Mode { Word = "word", … }`.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident: $kind:literal, $write:literal {
            $($(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[doc = $variant_doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The word for this in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(concat!("write ", $write).to_owned()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        $crate::config::keys::leaf! { $name: $kind, $write; }
    };
}

pub(super) use {bounds, choice, fit, leaf, section};
