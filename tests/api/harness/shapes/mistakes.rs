//! Places where the OpenAPI says something that the specification does not mean.
//!
//! A fault of our server does not belong here, nor does anything that could be true.

use http::StatusCode;

/// One place in one endpoint's answer where a violation is allowed.
struct Mistake {
    endpoint: &'static str,
    status: u16,
    /// A JSON pointer; `*` stands for any one name or index.
    pointer: &'static str,
    reason: &'static str,
}

const ECHOED_ORIGIN: &str = "The answer is the event that was sent, with one more signature. No room \
    version requires an event to have `origin`, and adding one would break the hash that the inviting server signed.";

const UNKNOWN_OF_DEVICE: &str = "Other servers write `null` for what they do not know of a device, and clients rely on the \
    names (matrix-nio fails without them).";

const NO_TURN_SERVER: &str = "The specification has no way to say that there is no TURN server. Other servers answer `{}`, \
    and clients take it as that; they repeat a request that failed.";

const KNOWN_SPEC_MISTAKES: &[Mistake] = &[
    Mistake {
        endpoint: "GET /_matrix/client/v3/devices",
        status: 200,
        pointer: "/devices/*/display_name",
        reason: UNKNOWN_OF_DEVICE,
    },
    Mistake {
        endpoint: "GET /_matrix/client/v3/devices",
        status: 200,
        pointer: "/devices/*/last_seen_ip",
        reason: UNKNOWN_OF_DEVICE,
    },
    Mistake {
        endpoint: "GET /_matrix/client/v3/devices",
        status: 200,
        pointer: "/devices/*/last_seen_ts",
        reason: UNKNOWN_OF_DEVICE,
    },
    Mistake {
        endpoint: "GET /_matrix/client/v3/devices/{deviceId}",
        status: 200,
        pointer: "/display_name",
        reason: UNKNOWN_OF_DEVICE,
    },
    Mistake {
        endpoint: "GET /_matrix/client/v3/devices/{deviceId}",
        status: 200,
        pointer: "/last_seen_ip",
        reason: UNKNOWN_OF_DEVICE,
    },
    Mistake {
        endpoint: "GET /_matrix/client/v3/devices/{deviceId}",
        status: 200,
        pointer: "/last_seen_ts",
        reason: UNKNOWN_OF_DEVICE,
    },
    Mistake { endpoint: "GET /_matrix/client/v3/voip/turnServer", status: 200, pointer: "/*", reason: NO_TURN_SERVER },
    Mistake {
        endpoint: "PUT /_matrix/federation/v1/invite/{roomId}/{eventId}",
        status: 200,
        pointer: "/1/event/origin",
        reason: ECHOED_ORIGIN,
    },
    Mistake {
        endpoint: "PUT /_matrix/federation/v2/invite/{roomId}/{eventId}",
        status: 200,
        pointer: "/event/origin",
        reason: ECHOED_ORIGIN,
    },
];

/// Returns whether a violation at this place is the OpenAPI's mistake.
pub(super) fn excuses(endpoint: &str, status: StatusCode, pointer: &str) -> bool {
    KNOWN_SPEC_MISTAKES.iter().any(|mistake| {
        mistake.endpoint == endpoint && mistake.status == status.as_u16() && covers(mistake.pointer, pointer)
    })
}

fn covers(pattern: &str, pointer: &str) -> bool {
    let (mut names, mut given) = (pattern.split('/'), pointer.split('/'));
    loop {
        match (names.next(), given.next()) {
            (None, None) => return true,
            (Some(name), Some(there)) if name == "*" || name == there => {}
            _ => return false,
        }
    }
}

#[test]
fn a_mistake_is_about_an_endpoint_of_the_specification_and_has_a_reason() {
    let shapes = super::Shapes::load();
    for mistake in KNOWN_SPEC_MISTAKES {
        let endpoint = shapes.endpoints.iter().find(|endpoint| endpoint.name == mistake.endpoint);
        let listed = endpoint.is_some_and(|endpoint| endpoint.responses.contains_key(&mistake.status));
        assert!(listed, "{} does not answer {}", mistake.endpoint, mistake.status);
        assert!(!mistake.reason.is_empty(), "{}", mistake.endpoint);
    }
}

#[test]
fn a_star_covers_one_name() {
    assert!(covers("/chunk/*/age", "/chunk/3/age"));
    assert!(!covers("/chunk/*/age", "/chunk/age"));
    assert!(!covers("/chunk/*", "/chunk/3/age"));
    assert!(!covers("/chunk", "/chunk/3"));
}
