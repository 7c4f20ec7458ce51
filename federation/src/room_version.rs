//! The supported room versions, and their rules.
//!
//! Versions 1 to 5 are left out: ruma asks servers built on it not to advertise them, because it only partly supports
//! their looser JSON and older state resolution. So every room here has strict canonical JSON, and its event IDs are
//! URL-safe reference hashes. The rest of the crate relies on that.

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

static SUPPORTED: [RoomVersionId; 7] = [
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// The room versions we create, join and serve, oldest first.
pub fn supported_room_versions() -> &'static [RoomVersionId] {
    &SUPPORTED
}

/// The rules of a room version; `None` if it is not supported.
pub fn rules(version: &RoomVersionId) -> Option<RoomVersionRules> {
    if SUPPORTED.contains(version) { version.rules() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_6_to_12_have_rules() {
        for number in 6..=12 {
            let version = RoomVersionId::try_from(number.to_string()).unwrap();
            assert!(rules(&version).is_some(), "{version}");
        }
        for other in ["1", "2", "3", "4", "5", "13", "org.example.unknown"] {
            let version = RoomVersionId::try_from(other).unwrap();
            assert!(rules(&version).is_none(), "{version}");
        }
        assert_eq!(supported_room_versions().len(), 7);
    }
}
