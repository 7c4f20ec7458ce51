//! Requests with a server's signature: the `X-Matrix` authorization header. Server-server API, [Request
//! Authentication](https://spec.matrix.org/v1.19/server-server-api/#request-authentication).
//!
//! The signature covers method, path with query, origin, destination and body, so nobody can use the request for
//! anything else or anywhere else. It can be repeated to the same server. Requests that must not be processed twice
//! therefore have an ID of their own.

use ruma::{
    ServerName,
    api::federation::authentication::{XMatrix, XMatrixVerificationError},
    signatures::{PublicKeyMap, PublicKeySet},
};

use crate::{broken_keys::is_broken, published_keys::PublicKey, signing::ServerSigner};

/// The request's body is not JSON, or cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("the request is not JSON that can be signed")]
pub struct SignRequestError(#[source] serde_json::Error);

/// Adds the header with the request's origin, its destination and our signature.
///
/// # Errors
/// When the body is neither empty nor canonical JSON.
pub fn sign_request<T: AsRef<[u8]>>(
    signer: &ServerSigner,
    destination: &ServerName,
    request: &mut http::Request<T>,
) -> Result<(), SignRequestError> {
    let object = XMatrix::request_object(request, signer.server_name(), destination).map_err(SignRequestError)?;
    let signed = serde_json::to_vec(&object).map_err(SignRequestError)?;
    let key = signer.current();
    let header = XMatrix::new(
        signer.server_name().to_owned(),
        destination.to_owned(),
        key.key_id().to_owned(),
        key.sign_bytes(&signed),
    );
    request.headers_mut().insert(http::header::AUTHORIZATION, (&header).into());
    Ok(())
}

/// Checks that the request was signed with this key, for `destination`. The caller must know that the key belongs to
/// the origin and is valid now.
///
/// # Errors
/// When the signature is wrong, or anyone can sign with the key.
pub fn verify_request<T: AsRef<[u8]>>(
    header: &XMatrix,
    destination: &ServerName,
    key: &PublicKey,
    request: &http::Request<T>,
) -> Result<(), XMatrixVerificationError> {
    // Without a key, no signature is right.
    let key = Some(key).filter(|key| !is_broken(key));
    let keys: PublicKeySet = key.map(|key| (header.key.to_string(), key.to_base64())).into_iter().collect();
    header.verify_http_request(request, destination, &PublicKeyMap::from([(header.origin.to_string(), keys)]))
}

#[cfg(test)]
mod tests {
    use ruma::owned_server_name;

    use super::*;
    use crate::broken_keys::tests::{leaked, weak};

    fn request(method: &str, uri: &str, body: &'static str) -> http::Request<&'static str> {
        http::Request::builder().method(method).uri(uri).body(body).unwrap()
    }

    #[test]
    fn a_request_verifies_as_it_was_sent_and_in_no_other_way() {
        let a = ServerSigner::generate(owned_server_name!("a.test"));
        let other = ServerSigner::generate(owned_server_name!("a.test"));
        let b = owned_server_name!("b.test:8448");
        let mut sent = request("PUT", "/_matrix/federation/v1/send/1?a=%20b", r#"{"b":2,"a":[1,"é"]}"#);
        sign_request(&a, &b, &mut sent).unwrap();
        let header = XMatrix::extract_from_http_headers(sent.headers()).unwrap();
        let check = |destination: &str, key: PublicKey, received: http::Request<&'static str>| {
            verify_request(&header, &ServerName::parse(destination).unwrap(), &key, &received).is_ok()
        };
        let key = || PublicKey::of(&a);
        let path = "/_matrix/federation/v1/send/1?a=%20b";
        assert!(check("b.test:8448", key(), request("PUT", path, r#"{"b":2,"a":[1,"é"]}"#)));
        // Equal JSON in another spelling.
        assert!(check("b.test:8448", key(), request("PUT", path, r#"{ "a": [1, "\u00e9"], "b": 2 }"#)));
        assert!(!check("c.test", key(), request("PUT", path, r#"{"b":2,"a":[1,"é"]}"#)));
        assert!(!check("b.test:8448", PublicKey::of(&other), request("PUT", path, r#"{"b":2,"a":[1,"é"]}"#)));
        assert!(!check("b.test:8448", key(), request("POST", path, r#"{"b":2,"a":[1,"é"]}"#)));
        assert!(!check(
            "b.test:8448",
            key(),
            request("PUT", "/_matrix/federation/v1/send/2", r#"{"b":2,"a":[1,"é"]}"#)
        ));
        assert!(!check("b.test:8448", key(), request("PUT", path, r#"{"b":3,"a":[1,"é"]}"#)));
        assert!(!check("b.test:8448", key(), request("PUT", path, "")));
    }

    #[test]
    fn a_body_that_is_no_json_is_not_signed() {
        let a = ServerSigner::generate(owned_server_name!("a.test"));
        let mut sent = request("PUT", "/", "{");
        assert!(sign_request(&a, &owned_server_name!("b.test"), &mut sent).is_err());
    }

    #[test]
    fn a_key_with_which_anyone_can_sign_proves_nothing() {
        let (a, b) = (owned_server_name!("a.test"), owned_server_name!("b.test"));
        // With a weak key, it is the signature of every message.
        let mut signature = vec![0; 64];
        signature[0] = 1;
        let key_id = ruma::OwnedServerSigningKeyId::try_from("ed25519:weak").unwrap();
        let header = XMatrix::new(a, b.clone(), key_id, ruma::serde::Base64::new(signature));
        for key in [weak(), leaked()] {
            assert!(verify_request(&header, &b, &key, &request("GET", "/", "")).is_err());
        }
    }
}
