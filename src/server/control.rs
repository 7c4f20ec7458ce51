//! The control socket, through which the command line reaches a running server. Only that server may write to its
//! database.
//!
//! `control.sock` in the data directory takes `POST /operation` with an [`Operation`] as JSON. Anyone who can open the
//! file may do everything, so it belongs only to the server's own user.

use std::{
    io,
    path::{Path, PathBuf},
};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use tracing::warn;

use crate::{
    admin_api::{self, Operation},
    app::App,
    http::{
        RawJson,
        listen::{Address, Listener, ListenerSpec},
        read_body,
        shutdown::Shutdown,
        tracked::TrackedLayer,
    },
    report::Report,
};

const PATH: &str = "/operation";

/// The maximum body: an operation is small.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The maximum answer: our servers answer with at most a page of a listing.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// The path of the socket in a data directory.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Binds the socket. Without it a server still serves, but commands work only once it is stopped.
pub(super) async fn listen(data_dir: &Path) -> Option<Listener> {
    let address = Address::Unix { path: socket(data_dir), mode: 0o600 };
    match Listener::bind(&ListenerSpec { address, tls: None }).await {
        Ok(listener) => Some(listener),
        Err(error) => {
            warn!(error = %Report(&error), "no control socket: `sabha user` and `sabha token` need the server stopped");
            None
        }
    }
}

/// The router of the socket.
pub(super) fn router(app: App, shutdown: &Shutdown) -> Router {
    let router = Router::new().route(PATH, post(answer)).with_state(app);
    router.layer(TrackedLayer::new(shutdown.tasks().clone()))
}

async fn answer(State(app): State<App>, request: Request) -> Response {
    let refused = |status: StatusCode, error: String| (status, json_bytes(&json!({ "error": error }))).into_response();
    let limit_time = app.config.limits.request_time.duration();
    let body = match read_body(request.into_body(), MAX_BODY_BYTES, limit_time).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    let operation: Operation = match serde_json::from_slice(&body) {
        Ok(operation) => operation,
        // For example a command of another release.
        Err(error) => {
            return refused(StatusCode::BAD_REQUEST, format!("the running server does not know that: {error}"));
        }
    };
    match admin_api::carry_out(&app, operation).await {
        Ok(done) => json_bytes(&done).into_response(),
        Err(error) => refused(StatusCode::UNPROCESSABLE_ENTITY, Report(&error).to_string()),
    }
}

fn json_bytes(value: &Value) -> RawJson {
    RawJson(value.to_string().into())
}

/// Sends an operation to the running server. `Ok(None)` if no server runs here.
///
/// # Errors
/// The server's refusal, or the failure of the connection, in one line.
pub async fn ask(data_dir: &Path, operation: &Operation) -> Result<Option<Value>, String> {
    let path = socket(data_dir);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("the running server cannot be asked through {}: {error}", path.display())),
    };
    let body = serde_json::to_string(operation).map_err(|error| error.to_string())?;
    let lost = |error: &dyn std::fmt::Display| format!("the running server did not answer: {error}");
    let answer = exchange(stream, &body).await.map_err(|error| lost(&error))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| lost(&"its answer is cut off"))?;
    let answer: Value = serde_json::from_str(body).map_err(|error| lost(&error))?;
    if head.starts_with("HTTP/1.1 200 ") {
        return Ok(Some(answer));
    }
    Err(answer["error"].as_str().unwrap_or("the running server refused").to_owned())
}

/// Sends one request on its own connection. Our answers have a length and are never chunked.
async fn exchange(mut stream: UnixStream, body: &str) -> io::Result<String> {
    let length = body.len();
    let head =
        format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).await?;
    Ok(answer)
}
