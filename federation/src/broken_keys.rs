//! Keys whose signatures prove nothing, because anyone can make them.

use ed25519_dalek::VerifyingKey;

use crate::published_keys::PublicKey;

/// Keys whose private half is public, each with its source.
///
/// - ELEMENTSEC-2025-1670, CVE-2026-24044: a Helm chart gave this key to all its servers. Synapse refuses it, too.
const LEAKED: [[u8; 32]; 1] = [[
    0x97, 0xf3, 0xbd, 0x87, 0x13, 0x15, 0x28, 0x1e, 0x8b, 0x83, 0xed, 0xc7, 0xa9, 0xfd, 0x05, 0x41, 0x06, 0x61, 0x54,
    0x44, 0x90, 0x70, 0xcc, 0xdb, 0x3c, 0xdd, 0x42, 0xcf, 0x69, 0xcc, 0xde, 0x88,
]];

/// Returns whether anyone can sign with this key: it has leaked, or it is weak, so that one signature fits many messages.
/// Libsodium, which most servers use, refuses weak keys. Ruma does not.
pub(crate) fn is_broken(key: &PublicKey) -> bool {
    LEAKED.iter().any(|leaked| key.as_bytes() == leaked)
        || VerifyingKey::try_from(key.as_bytes()).is_ok_and(|key| key.is_weak())
}

#[cfg(test)]
pub(crate) mod tests {
    use ruma::serde::Base64;

    use super::*;

    /// The key of CVE-2026-24044, as Synapse writes it.
    pub(crate) fn leaked() -> PublicKey {
        let key: Base64 = Base64::parse("l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og=").unwrap();
        PublicKey::from_bytes(key.as_bytes()).unwrap()
    }

    /// The neutral element of the curve.
    pub(crate) fn weak() -> PublicKey {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        PublicKey::from_bytes(&neutral).unwrap()
    }

    #[test]
    fn leaked_and_weak_keys_are_broken_and_others_are_not() {
        assert!(is_broken(&leaked()) && is_broken(&weak()));
        let good = crate::ServerSigner::generate(ruma::owned_server_name!("a.test"));
        assert!(!is_broken(&PublicKey::of(&good)));
        // Bytes that are no point of the curve verify nothing in any case.
        assert!(!is_broken(&PublicKey::from_bytes(&[0xff; 32]).unwrap()));
    }
}
