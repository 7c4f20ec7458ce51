//! Answers of `/.well-known/matrix/server`: the corpus, mutations of it, and the routes that they lead to.

use http::{HeaderValue, uri::Authority};
use rand::{RngExt as _, seq::IndexedRandom as _};
use ruma::{OwnedServerName, server_name};
use serde_json::{Value as JsonValue, json};

use super::*;
use crate::{
    Network, Service,
    discovery::{delegated_to, find_route},
    fuzz::mutations::{JSON_PIECES, Mutations},
    test_ready::ready,
};

const MUTATIONS: u64 = 20_000;

const WORDS: [&str; 14] = [
    "m.server",
    "m.homeserver",
    "example.org",
    "example.org:443",
    "192.0.2.1",
    "[2001:db8::1]:8448",
    "[::ffff:127.0.0.1]",
    "127.1",
    "0x7f.1:80",
    ":443",
    "example.org:",
    "https://example.org/",
    "user@example.org",
    "a.b",
];

/// A host that delegates with this answer, and has no service records.
struct Delegating<'a>(&'a str);

impl Network for Delegating<'_> {
    async fn well_known(&self, _: &str) -> Option<OwnedServerName> {
        delegated_to(self.0.as_bytes())
    }

    async fn services(&self, _: &str) -> Vec<Service> {
        Vec::new()
    }
}

/// Reads an answer and follows it. Returns whether it delegates.
fn check(text: &str) -> bool {
    let route = ready(find_route(server_name!("start.test"), &Delegating(text)));
    // The server can be asked, whatever the answer is: the header and the port are in order.
    HeaderValue::from_str(&route.host_header).unwrap();
    let authority: Authority = route.host_header.parse().unwrap();
    assert_eq!(authority.as_str(), route.host_header);
    assert_eq!(route.targets.len(), 1);
    let Some(to) = delegated_to(text.as_bytes()) else {
        assert_eq!(route.host_header, "start.test");
        return false;
    };
    assert!(to.as_str().len() <= 261);
    assert_eq!(route.host_header, to.as_str());
    let written = json!({ "m.server": to }).to_string();
    assert_eq!(delegated_to(written.as_bytes()), Some(to));
    true
}

#[test]
fn the_names_of_the_corpus_say_what_delegates() {
    names_say("well-known", check);
}

#[test]
fn mutations_delegate_to_a_server_name_or_to_nobody() {
    let corpus = corpus("well-known");
    let mutations = Mutations { corpus: &corpus, words: &WORDS };
    let make = |random: &mut StdRng| {
        let text = &corpus.choose(random).unwrap().1;
        match serde_json::from_str::<JsonValue>(text) {
            Ok(mut answer) if random.random() => {
                mutations.value(random, &mut answer);
                answer.to_string()
            }
            _ => mutations::bytes(random, text, &JSON_PIECES),
        }
    };
    let kept = each_seed(MUTATIONS, make, |text| check(text));
    assert!(kept > MUTATIONS / 10, "{kept}");
}
