//! Bodies that an HTTP/2 client cuts off. A writing request goes on without its client, so its handler must notice.

use axum::response::IntoResponse as _;
use axum::routing::post;
use bytes::Bytes;

use super::*;
use crate::http::read_body;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// Error codes of RST_STREAM.
const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

/// A frame of the first stream ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113#section-4.1)).
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
}

/// The head of `POST /read`, in the plainest encoding that HPACK has.
fn head(content_length: Option<&str>) -> Vec<u8> {
    // From the static table: the method and the scheme, and the names of path, authority and content-length.
    let mut block = b"\x83\x86\x04\x05/read\x01\x09localhost".to_vec();
    if let Some(content_length) = content_length {
        block.extend([0x0f, 0x0d, u8::try_from(content_length.len()).unwrap()]);
        block.extend(content_length.as_bytes());
    }
    frame(HEADERS, END_HEADERS, &block)
}

fn data(text: &str, flags: u8) -> Vec<u8> {
    frame(DATA, flags, text.as_bytes())
}

fn reset(code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, &code.to_be_bytes())
}

/// The body that a handler reads from a client that sends these frames, or the status of its error.
async fn read_from(frames: &[Vec<u8>]) -> Result<Bytes, u16> {
    let shutdown = Shutdown::new();
    let (tell, mut read) = mpsc::channel(1);
    let handler = async move |request: Request| {
        let body = read_body(request.into_body(), 100, Duration::from_secs(10)).await;
        tell.send(body.map_err(|error| error.into_response().status().as_u16())).await.unwrap();
    };
    let router = Router::new().route("/read", post(handler)).layer(TrackedLayer::new(shutdown.tasks().clone()));
    let address = Address::Tcp(([127, 0, 0, 1], 0).into());
    let listener = Listener::bind(&ListenerSpec { address, tls: None }).await.unwrap();
    let Address::Tcp(address) = *listener.address() else { panic!("it was TCP") };
    let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&[HTTP2_START, &frames.concat()].concat()).await.unwrap();
    let read = read.recv().await.unwrap();
    drop(client);
    shutdown.begin();
    serving.await.unwrap();
    read
}

#[tokio::test]
async fn a_body_that_its_client_cuts_off_is_an_error_whatever_the_reason_says() {
    for code in [NO_ERROR, CANCEL] {
        for content_length in [None, Some("10"), Some("20")] {
            let frames = [head(content_length), data("0123456789", 0), reset(code)];
            assert_eq!(read_from(&frames).await, Err(400), "{code} {content_length:?}");
        }
        let nothing = [head(None), reset(code)];
        assert_eq!(read_from(&nothing).await, Err(400), "{code}");
    }
}

#[tokio::test]
async fn a_whole_body_is_read_though_its_client_does_not_wait_for_the_answer() {
    let whole = Ok(Bytes::from_static(b"0123456789"));
    for content_length in [None, Some("10")] {
        let frames = [head(content_length), data("01234", 0), data("56789", END_STREAM)];
        assert_eq!(read_from(&frames).await, whole, "{content_length:?}");
        for code in [NO_ERROR, CANCEL] {
            let frames = [&frames[..], &[reset(code)]].concat();
            assert_eq!(read_from(&frames).await, whole, "{code} {content_length:?}");
        }
    }
}
