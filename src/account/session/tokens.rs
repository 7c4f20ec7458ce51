//! Secret tokens: their creation, and their stored form.

use rand::{RngExt as _, distr::Alphanumeric};
use sha2::{Digest as _, Sha256};

/// The stored form of a token: its SHA-256, from which the token cannot be recovered.
pub type TokenHash = [u8; 32];

/// Length of a token: 43 characters of base 62 hold 256 bits from the operating system's generator.
const LENGTH: usize = 43;

/// The purpose of a token. The prefix lets people and secret scanners recognize it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    Access,
    Refresh,
    Login,
    Setup,
}

impl TokenKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Access => "sbt_",
            Self::Refresh => "sbr_",
            Self::Login => "sbl_",
            Self::Setup => "sbs_",
        }
    }
}

/// A new token: the secret for the client, and the hash that we store.
pub struct NewToken {
    pub secret: String,
    pub hash: TokenHash,
}

impl NewToken {
    pub fn generate(kind: TokenKind) -> Self {
        let secret = kind.prefix().to_owned() + &random_text(LENGTH);
        let hash = hash_token(&secret);
        Self { secret, hash }
    }
}

/// Hides the secret.
impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").finish_non_exhaustive()
    }
}

/// Returns whether the text could be a token of this kind. If not, it needs no query.
pub fn has_shape(kind: TokenKind, token: &str) -> bool {
    token
        .strip_prefix(kind.prefix())
        .is_some_and(|secret| secret.len() == LENGTH && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Hashes a secret token for storage. It cannot be recovered from the hash.
pub fn hash_token(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// Random letters and digits that cannot be guessed.
pub fn random_text(length: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_name_their_kind_and_stay_out_of_debug_output() {
        let (one, two) = (NewToken::generate(TokenKind::Access), NewToken::generate(TokenKind::Access));
        assert_ne!(one.secret, two.secret);
        assert_eq!(one.secret.len(), LENGTH + 4);
        assert!(one.secret.starts_with("sbt_"));
        assert!(has_shape(TokenKind::Access, &one.secret));
        assert!(!has_shape(TokenKind::Refresh, &one.secret));
        assert!(!has_shape(TokenKind::Access, &one.secret[..LENGTH]));
        assert!(!has_shape(TokenKind::Access, &one.secret.replace("sbt_", "sbt_x")));
        assert_eq!(one.hash, hash_token(&one.secret));
        assert!(!format!("{one:?}").contains(&one.secret[4..]));
    }
}
