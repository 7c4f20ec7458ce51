//! Files with signing keys: ours, and those of other homeservers, whose keys an operator brings along.
//!
//! | Written by | Form |
//! |---|---|
//! | Sabha, Synapse | lines of `ed25519 NAME SEED`, the seed in unpadded base64; the first key is the one in use |
//! | Dendrite | PEM blocks `MATRIX PRIVATE KEY` with a `Key-ID` header and the seed |
//! | Conduit, conduwuit, tuwunel | the bytes of the entry `keypair` in the database: the name, `0xFF`, and PKCS#8 |

use ed25519_dalek::SECRET_KEY_LENGTH;
use ruma::serde::{Base64, base64::Standard};
use zeroize::Zeroizing;

use crate::{broken_keys::is_broken, signing::OwnKey};

/// Maximum number of keys in a file. Servers have one, or a few after rotations.
const MAX_KEYS: usize = 16;

/// Maximum length of a key's name. Names have about six letters, and every event and request carries its key's.
const MAX_NAME_BYTES: usize = 64;

/// Maximum size of a key file: far above that of 16 keys.
pub const MAX_BYTES: usize = 16 * 1024;

const PEM_BEGIN: &str = "-----BEGIN MATRIX PRIVATE KEY-----";
const PEM_END: &str = "-----END MATRIX PRIVATE KEY-----";

/// Why bytes are not a key file. No variant shows any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    #[error("the key file holds no key")]
    Empty,
    #[error("the key file has more than {MAX_BYTES} bytes, or more than {MAX_KEYS} keys")]
    TooLarge,
    #[error("the key is not written as algorithm, name and seed")]
    Malformed,
    #[error("the key's algorithm is not ed25519")]
    UnknownAlgorithm,
    #[error("the key's name is not made of letters, digits and underscores, {MAX_NAME_BYTES} at most")]
    InvalidName,
    #[error("the key's seed is not 32 bytes in base64")]
    InvalidSeed,
    #[error("the PEM block has no end, or no header Key-ID")]
    MalformedPem,
    #[error("the key is not an Ed25519 key in PKCS#8")]
    MalformedPkcs8,
    #[error("everybody knows this key's seed, so anyone could sign with it")]
    Leaked,
    #[error("two keys of the file have the same name")]
    SameName,
}

/// Reads the keys of a file in any of the forms above: one at least, and no two with the same name.
///
/// # Errors
/// [`KeyFileError`], for any of the keys.
pub fn read(file: &[u8]) -> Result<Vec<OwnKey>, KeyFileError> {
    if file.len() > MAX_BYTES {
        return Err(KeyFileError::TooLarge);
    }
    // No text holds this byte.
    let keys = match file.iter().position(|byte| *byte == 0xff) {
        Some(at) => vec![of_pkcs8(&file[..at], &file[at + 1..])?],
        None => {
            let text = str::from_utf8(file).map_err(|_| KeyFileError::Malformed)?;
            if text.contains(PEM_BEGIN) { of_pem(text)? } else { of_lines(text)? }
        }
    };
    if keys.len() > MAX_KEYS {
        return Err(KeyFileError::TooLarge);
    }
    let is_repeated = |(index, key): (usize, &OwnKey)| keys[..index].iter().any(|other| other.key_id() == key.key_id());
    if keys.iter().enumerate().any(is_repeated) {
        return Err(KeyFileError::SameName);
    }
    if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(keys) }
}

/// The text of our file, with a line end. It contains the secret: write it where only the server can read it.
pub fn write(key: &OwnKey) -> Zeroizing<String> {
    let seed = Base64::<Standard, _>::new(key.seed());
    let seed = Zeroizing::new(seed.encode());
    Zeroizing::new(format!("ed25519 {} {}\n", key.key_id().key_name(), *seed))
}

fn of_lines(text: &str) -> Result<Vec<OwnKey>, KeyFileError> {
    text.lines().filter(|line| !line.trim().is_empty()).map(of_line).collect()
}

fn of_line(line: &str) -> Result<OwnKey, KeyFileError> {
    let mut words = line.split_whitespace();
    let (Some(algorithm), Some(name), Some(seed), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(KeyFileError::Malformed);
    };
    if algorithm != "ed25519" {
        return Err(KeyFileError::UnknownAlgorithm);
    }
    named(name, &*of_base64(seed)?)
}

/// Reads the blocks of a PEM file. The text around them means nothing.
fn of_pem(text: &str) -> Result<Vec<OwnKey>, KeyFileError> {
    let blocks = text.split(PEM_BEGIN).skip(1);
    blocks.map(|block| of_block(block.split_once(PEM_END).ok_or(KeyFileError::MalformedPem)?.0)).collect()
}

fn of_block(block: &str) -> Result<OwnKey, KeyFileError> {
    let mut key_id = None;
    let mut seed = Zeroizing::new(String::new());
    for line in block.lines() {
        match line.split_once(':') {
            Some(("Key-ID", value)) => key_id = Some(value.trim()),
            Some(_) => {}
            None => seed.push_str(line.trim()),
        }
    }
    let name = key_id.ok_or(KeyFileError::MalformedPem)?.strip_prefix("ed25519:");
    named(name.ok_or(KeyFileError::UnknownAlgorithm)?, &*of_base64(&seed)?)
}

/// Reads PKCS#8 ([RFC 8410], 7 and 10.3), with or without the public key. If that is there, it must be the seed's.
///
/// [RFC 8410]: https://www.rfc-editor.org/rfc/rfc8410
fn of_pkcs8(name: &[u8], der: &[u8]) -> Result<OwnKey, KeyFileError> {
    /// A sequence of one byte's length: it starts with the version, which is 0 without a public key and 1 with one.
    const SEQUENCE: u8 = 0x30;
    const VERSION: [u8; 2] = [0x02, 0x01];
    /// The OID of Ed25519, and the starts of two octet strings, one within the other.
    const ALGORITHM_AND_SEED: [u8; 11] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    /// The starts of the public key: as the RFC has it, and as `ring` writes it.
    const PUBLIC_KEY: [&[u8]; 2] = [&[0x81, 0x21, 0x00], &[0xa1, 0x23, 0x03, 0x21, 0x00]];

    let [SEQUENCE, length, der @ ..] = der else { return Err(KeyFileError::MalformedPkcs8) };
    if der.len() != usize::from(*length) {
        return Err(KeyFileError::MalformedPkcs8);
    }
    let seed = der.strip_prefix(&VERSION).and_then(|der| der.split_first());
    let seed = seed.and_then(|(_, der)| der.strip_prefix(&ALGORITHM_AND_SEED));
    let (seed, public) =
        seed.and_then(|der| der.split_first_chunk::<SECRET_KEY_LENGTH>()).ok_or(KeyFileError::MalformedPkcs8)?;
    let key = named(str::from_utf8(name).map_err(|_| KeyFileError::InvalidName)?, seed)?;
    let is_the_seeds =
        PUBLIC_KEY.iter().filter_map(|start| public.strip_prefix(*start)).any(|public| public == key.public_bytes());
    if public.is_empty() || is_the_seeds { Ok(key) } else { Err(KeyFileError::MalformedPkcs8) }
}

fn named(name: &str, seed: &[u8; SECRET_KEY_LENGTH]) -> Result<OwnKey, KeyFileError> {
    let name = Some(name).filter(|name| name.len() <= MAX_NAME_BYTES);
    let key = name.and_then(|name| OwnKey::from_seed(name, seed)).ok_or(KeyFileError::InvalidName)?;
    if is_broken(&key.public_key()) { Err(KeyFileError::Leaked) } else { Ok(key) }
}

fn of_base64(seed: &str) -> Result<Zeroizing<[u8; SECRET_KEY_LENGTH]>, KeyFileError> {
    let seed = Base64::<Standard, [u8; SECRET_KEY_LENGTH]>::parse(seed).map_err(|_| KeyFileError::InvalidSeed)?;
    Ok(Zeroizing::new(seed.into_inner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seed of the specification's test key, and its public key.
    const SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
    const PUBLIC: &str = "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI";

    fn refused(file: &[u8]) -> KeyFileError {
        read(file).map(|_| ()).unwrap_err()
    }

    /// The form of Conduit's database, with these bytes after the seed.
    fn conduit(name: &str, version: u8, end: &[u8]) -> Vec<u8> {
        let seed = of_base64(SEED).unwrap();
        let der =
            [&[0x02, 0x01, version, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20], &seed[..], end]
                .concat();
        [name.as_bytes(), &[0xff, 0x30, u8::try_from(der.len()).unwrap()], &der].concat()
    }

    fn public() -> Vec<u8> {
        Base64::<Standard>::parse(PUBLIC).unwrap().into_inner()
    }

    #[test]
    fn a_key_survives_its_file() {
        let key = OwnKey::generate();
        let file = write(&key);
        assert!(file.starts_with("ed25519 a_") && file.ends_with('\n'));
        let [again] = &read(file.as_bytes()).unwrap()[..] else { panic!("one key was written") };
        assert_eq!((again.key_id(), again.public_key()), (key.key_id(), key.public_key()));
        assert_eq!(*write(again), *file);
    }

    #[test]
    fn the_files_of_other_homeservers_are_read() {
        let check = |file: &[u8], expected: &[(&str, &str)]| {
            let keys = read(file).unwrap();
            let keys: Vec<_> =
                keys.iter().map(|key| (key.key_id().as_str().to_owned(), key.public_key_base64())).collect();
            let expected: Vec<_> = expected.iter().map(|(id, key)| ((*id).to_owned(), (*key).to_owned())).collect();
            assert_eq!(keys, expected);
        };
        let one = [("ed25519:a_1", PUBLIC)];
        check(format!("ed25519 a_1 {SEED}\n").as_bytes(), &one);
        check(format!("\n  ed25519\ta_1 {SEED}=\r\n\n").as_bytes(), &one);
        let other = "7KRZiZ2sTyRR8uqqUjRwczuwRXXkUMYIUHq4Mc3t4bE";
        let other_public = read(format!("ed25519 x {other}").as_bytes()).unwrap()[0].public_key_base64();
        check(
            format!("ed25519 a_1 {SEED}\ned25519 b {other}\n").as_bytes(),
            &[("ed25519:a_1", PUBLIC), ("ed25519:b", &other_public)],
        );

        let block = |id: &str, seed: &str| format!("{PEM_BEGIN}\nKey-ID: ed25519:{id}\n\n{seed}\n{PEM_END}\n");
        check(block("a_1", &format!("{SEED}=")).as_bytes(), &one);
        // The blank line after the headers may be missing, and the lines may be short.
        let (start, end) = SEED.split_at(20);
        check(format!("{PEM_BEGIN}\r\nKey-ID: ed25519:a_1\r\n{start}\r\n{end}=\r\n{PEM_END}").as_bytes(), &one);
        check(
            (block("a_1", SEED) + &block("b", other)).as_bytes(),
            &[("ed25519:a_1", PUBLIC), ("ed25519:b", &other_public)],
        );

        check(&conduit("a_1", 0, &[]), &one);
        check(&conduit("a_1", 1, &[&[0x81, 0x21, 0x00][..], &public()].concat()), &one);
        check(&conduit("a_1", 1, &[&[0xa1, 0x23, 0x03, 0x21, 0x00][..], &public()].concat()), &one);
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let check = |text: &str, expected: KeyFileError| assert_eq!(refused(text.as_bytes()), expected, "{text:?}");
        check("", KeyFileError::Empty);
        check(" \n\n", KeyFileError::Empty);
        check("ed25519 a_1", KeyFileError::Malformed);
        check(&format!("ed25519 a_1 {SEED} more"), KeyFileError::Malformed);
        check(&format!("rsa a_1 {SEED}"), KeyFileError::UnknownAlgorithm);
        check(&format!("ed25519 a-1 {SEED}"), KeyFileError::InvalidName);
        check(&format!("ed25519 {} {SEED}", "x".repeat(MAX_NAME_BYTES + 1)), KeyFileError::InvalidName);
        check("ed25519 a_1 c2hvcnQ", KeyFileError::InvalidSeed);
        check("ed25519 a_1 *", KeyFileError::InvalidSeed);
        check(&format!("ed25519 a_1 {SEED}\ned25519 b"), KeyFileError::Malformed);
        check(&format!("ed25519 a_1 {SEED}\ned25519 a_1 {SEED}"), KeyFileError::SameName);
        check(&"x".repeat(MAX_BYTES + 1), KeyFileError::TooLarge);
        let many: String = (0..=MAX_KEYS).map(|n| format!("ed25519 k{n} {SEED}\n")).collect();
        check(&many, KeyFileError::TooLarge);

        check(&format!("{PEM_BEGIN}\nKey-ID: ed25519:a_1\n\n{SEED}\n"), KeyFileError::MalformedPem);
        check(&format!("{PEM_BEGIN}\n\n{SEED}\n{PEM_END}"), KeyFileError::MalformedPem);
        check(&format!("{PEM_BEGIN}\nKey-ID: a_1\n\n{SEED}\n{PEM_END}"), KeyFileError::UnknownAlgorithm);
        check(&format!("{PEM_BEGIN}\nKey-ID: ed25519:\n\n{SEED}\n{PEM_END}"), KeyFileError::InvalidName);
        check(&format!("{PEM_BEGIN}\nKey-ID: ed25519:a_1\n\nAAAA\n{PEM_END}"), KeyFileError::InvalidSeed);
    }

    #[test]
    fn pkcs8_that_is_not_of_this_key_is_refused() {
        let bad = |file: &[u8]| assert_eq!(refused(file), KeyFileError::MalformedPkcs8, "{file:?}");
        let good = conduit("a_1", 1, &[&[0x81, 0x21, 0x00][..], &public()].concat());
        bad(b"a_1\xff");
        bad(b"\xff\x30\xff");
        (5..good.len()).for_each(|length| bad(&good[..length]));
        bad(&[&good[..], b"\n"].concat());
        bad(&conduit("a_1", 1, &[&[0x81, 0x21, 0x00][..], &[7; 32]].concat()));
        bad(&conduit("a_1", 1, &public()));
        assert_eq!(refused(&conduit("a-1", 0, &[])), KeyFileError::InvalidName);
        assert_eq!(refused(&[&[0xc3][..], &conduit("", 0, &[])].concat()), KeyFileError::InvalidName);
    }
}
