//! `X-Matrix` headers: the corpus, and mutations of it.

use http::{HeaderValue, Request, header::AUTHORIZATION};
use rand::{RngExt as _, seq::IndexedRandom as _};
use ruma::{api::federation::authentication::XMatrix, server_name};

use super::*;
use crate::{PublicKey, x_matrix::verify_request};

const MUTATIONS: u64 = 20_000;

/// Pieces of headers.
const PIECES: [&str; 16] = [
    "\"",
    "\\",
    "\\\"",
    ",",
    ", ",
    "=",
    " ",
    "\t",
    "X-Matrix ",
    "Bearer x, ",
    "origin=evil.test",
    "destination=\"\"",
    ",key=\"ed25519:\"",
    ",sig=AAAA",
    "[::1]:80",
    "é",
];

/// The request that the signed file of the corpus belongs to.
pub(super) fn request(method: &str, uri: &str, body: &'static [u8]) -> Request<&'static [u8]> {
    Request::builder().method(method).uri(uri).body(body).unwrap()
}

fn parse(text: &str) -> Option<XMatrix> {
    let mut sent = request("PUT", "/", b"");
    sent.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(text).ok()?);
    match XMatrix::extract_from_http_headers(sent.headers()) {
        Ok(header) => Some(header),
        // Ruma shows the header. Each of its characters may need an escape.
        Err(error) => {
            assert!(length_with_causes(&error) <= 4 * text.len() + 200, "{error}");
            None
        }
    }
}

fn fields(header: &XMatrix) -> (&str, Option<&str>, &str, String) {
    let destination = header.destination.as_ref().map(|name| name.as_str());
    (header.origin.as_str(), destination, header.key.as_str(), header.sig.encode())
}

/// Reads a header, writes it and reads it again. Returns whether it is one.
fn check(text: &str) -> bool {
    let Some(header) = parse(text) else { return false };
    assert!(
        [Some(&header.origin), header.destination.as_ref()]
            .into_iter()
            .flatten()
            .all(|name| name.as_str().len() <= 261)
    );
    let written = HeaderValue::from(&header);
    // All values in quotes, each character of the key escaped.
    assert!(written.len() <= 2 * text.len() + 64, "{written:?}");
    let again = parse(written.to_str().unwrap()).unwrap();
    assert_eq!(fields(&again), fields(&header));
    assert_eq!(HeaderValue::from(&again), written);
    true
}

/// Returns whether the header proves that `example.org` has sent the request of the corpus.
fn proves(header: &XMatrix) -> bool {
    let [good, ..] = signers();
    // The key is looked up by these two.
    if (header.origin.as_str(), header.key.as_str()) != (good.server_name().as_str(), good.key_id().as_str()) {
        return false;
    }
    let sent = request("PUT", "/_matrix/federation/v1/send/1", br#"{"a":1}"#);
    verify_request(header, server_name!("here.test"), &PublicKey::of(&good), &sent).is_ok()
}

#[test]
fn the_names_of_the_corpus_say_what_is_a_header() {
    names_say("x-matrix", check);
}

#[test]
fn mutations_are_refused_or_can_be_written() {
    let good: Vec<_> = corpus("x-matrix").into_iter().filter(|(name, _)| name.starts_with("kept-")).collect();
    let make = |random: &mut StdRng| {
        let text = good.choose(random).unwrap().1.clone();
        (0..random.random_range(1..3)).fold(text, |text, _| mutations::bytes(random, &text, &PIECES))
    };
    let kept = each_seed(MUTATIONS, make, |text| check(text));
    assert!(kept > MUTATIONS / 10, "{kept}");
}

#[test]
fn a_header_with_another_value_proves_nothing() {
    let signed = corpus("x-matrix").into_iter().find(|(name, _)| name == "kept-signed.txt").unwrap().1;
    let original = parse(&signed).unwrap();
    assert!(proves(&original));
    let make = |random: &mut StdRng| mutations::bytes(random, &signed, &PIECES);
    let proved = each_seed(MUTATIONS, make, |text| {
        let Some(header) = parse(text).filter(proves) else { return false };
        assert_eq!(header.sig.encode(), original.sig.encode());
        // Servers from before v1.3 of the specification name no destination, but the signature has it.
        header.destination.is_none_or(|destination| destination == "here.test") || panic!("for another server")
    });
    assert!(proved > 0, "some spell the same header in another way");
}
