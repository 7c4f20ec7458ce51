//! A proxy between the server and PostgreSQL that loses, delays or refuses messages at chosen moments.
//!
//! It parses the protocol's messages, so a test names the moment by a statement: the fault strikes when the writing
//! connection, or a reading one, next runs a statement that the test recognizes. The writing connection is the one that
//! asks for `synchronous_commit` when it connects.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream, UnixStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
        unix,
    },
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// A fault that strikes a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// PostgreSQL runs the statement; its answer is lost, and then the connection.
    LoseAnswer,
    /// The connection is lost before PostgreSQL gets the statement. [`Proxy::release`] delivers it late.
    HoldBack,
    /// PostgreSQL does not get the statement, and nobody is told. [`Proxy::release`] delivers it late.
    Stall,
}

struct Plan {
    on_writer: bool,
    recognizes: fn(&str) -> bool,
    fault: Fault,
}

/// A statement that was held back, and the connection on which it is still to arrive.
struct Held {
    bytes: Vec<u8>,
    database: unix::OwnedWriteHalf,
}

/// The proxy's treatment of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    #[default]
    Serve,
    /// Closes them at once, as a proxy does when its PostgreSQL is down.
    Close,
    /// Refuses encryption, then closes them.
    CloseLater,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    held: Option<Held>,
    manner: Manner,
    /// Ends every connection that is open now.
    cut: CancellationToken,
    /// Drops all data on every connection that is open now.
    silence: CancellationToken,
}

struct Shared {
    state: Mutex<State>,
    struck: watch::Sender<u32>,
    /// PostgreSQL's answers to statements that arrived late.
    late: watch::Sender<Vec<u8>>,
    socket: String,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The proxy. It ends with the test's runtime.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    database: String,
}

impl Proxy {
    /// Starts a proxy in front of a database of [`super::postgres::PostgresDatabase`].
    pub async fn before(url: &str) -> Self {
        let rest = url.strip_prefix("postgres:///").expect("a URL of the test's cluster");
        let (database, options) = rest.split_once("?host=").expect("a URL of the test's cluster");
        let dir = options.split('&').next().expect("a split has a first part");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            struck: watch::Sender::new(0),
            late: watch::Sender::default(),
            socket: format!("{dir}/.s.PGSQL.5432"),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let accepts = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let manner = accepts.state().manner;
                match manner {
                    Manner::Serve => drop(tokio::spawn(serve(Arc::clone(&accepts), client))),
                    Manner::Close => {}
                    Manner::CloseLater => drop(tokio::spawn(close_later(client))),
                }
            }
        });
        Self { shared, address, database: database.to_owned() }
    }

    /// Returns the database URL for the server. With `sslmode=prefer`, the default, it asks for encryption and gets
    /// none.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/{}?sslmode=prefer", self.address, self.database)
    }

    /// Lets `fault` strike the next statement of the writing connection for which `recognizes` returns true.
    pub fn strike(&self, recognizes: fn(&str) -> bool, fault: Fault) {
        self.shared.state().plan = Some(Plan { on_writer: true, recognizes, fault });
    }

    /// As [`Self::strike`], on any reading connection.
    pub fn strike_reader(&self, recognizes: fn(&str) -> bool, fault: Fault) {
        self.shared.state().plan = Some(Plan { on_writer: false, recognizes, fault });
    }

    /// Waits until the planned fault has struck.
    pub async fn struck(&self) {
        let mut struck = self.shared.struck.subscribe();
        struck.wait_for(|count| *count > 0).await.expect("the proxy lives");
        self.shared.struck.send_replace(0);
    }

    /// Refuses new connections in this manner until [`Self::allow`].
    pub fn refuse(&self, manner: Manner) {
        self.shared.state().manner = manner;
    }

    pub fn allow(&self) {
        self.shared.state().manner = Manner::Serve;
    }

    /// Ends every connection that is open.
    pub fn cut(&self) {
        std::mem::take(&mut self.shared.state().cut).cancel();
    }

    /// Drops all further data on the open connections, without closing them.
    pub fn silence(&self) {
        std::mem::take(&mut self.shared.state().silence).cancel();
    }

    /// Delivers the statement that was held back, and returns PostgreSQL's answer to it.
    pub async fn release(&self) -> String {
        let Held { bytes, mut database } = self.shared.state().held.take().expect("something was held back");
        let mut late = self.shared.late.subscribe();
        database.write_all(&bytes).await.expect("PostgreSQL still waits for it");
        // `Z` is PostgreSQL's "ready for query".
        let ended = |answer: &Vec<u8>| answer.len() >= 6 && answer[answer.len() - 6..].starts_with(b"Z\0\0\0\x05");
        let answer = late.wait_for(ended).await.expect("the proxy lives").clone();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// The request for encryption: its length and a magic number.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// State shared by both directions of one connection.
struct Link {
    shared: Arc<Shared>,
    cut: CancellationToken,
    /// All further data is dropped.
    silence: CancellationToken,
    /// The next answer is lost.
    loses: CancellationToken,
    /// The server's side is closed.
    hangs_up: CancellationToken,
    /// Answers are stored, not passed on.
    keeps: CancellationToken,
}

async fn serve(shared: Arc<Shared>, client: TcpStream) {
    let Ok(database) = UnixStream::connect(&shared.socket).await else { return };
    client.set_nodelay(true).expect("a TCP connection");
    let (cut, silence) = {
        let state = shared.state();
        (state.cut.child_token(), state.silence.child_token())
    };
    let token = CancellationToken::new;
    let link = Arc::new(Link { shared, cut, silence, loses: token(), hangs_up: token(), keeps: token() });
    let (from_client, to_client) = client.into_split();
    let (from_database, to_database) = database.into_split();
    tokio::spawn(answers(Arc::clone(&link), from_database, to_client));
    requests(&link, from_client, to_database).await;
}

async fn close_later(mut client: TcpStream) {
    let mut asked = [0; SSL_REQUEST.len()];
    if client.read_exact(&mut asked).await.is_ok() && asked == SSL_REQUEST && client.write_all(b"N").await.is_ok() {
        // Reads the next bytes, so that closing does not reset the connection.
        let _: Result<usize, _> = client.read(&mut [0; 1024]).await;
    }
}

/// Copies data from PostgreSQL to the server.
async fn answers(link: Arc<Link>, mut from: unix::OwnedReadHalf, to: OwnedWriteHalf) {
    let mut to = Some(to);
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read.unwrap_or(0),
            () = link.cut.cancelled() => return,
            () = link.hangs_up.cancelled(), if to.is_some() => {
                to = None;
                continue;
            }
        };
        if read == 0 {
            return;
        }
        if link.loses.is_cancelled() {
            // PostgreSQL has run the statement. The other direction ends with this one.
            link.cut.cancel();
            link.shared.struck.send_modify(|count| *count += 1);
            return;
        }
        if link.silence.is_cancelled() {
            continue;
        }
        if link.keeps.is_cancelled() {
            link.shared.late.send_modify(|late| late.extend_from_slice(&bytes[..read]));
        } else if let Some(to) = &mut to
            && to.write_all(&bytes[..read]).await.is_err()
        {
            return;
        }
    }
}

/// Copies data from the server to PostgreSQL.
async fn requests(link: &Link, mut from: OwnedReadHalf, mut to: unix::OwnedWriteHalf) {
    let mut statements: HashMap<Vec<u8>, String> = HashMap::new();
    let (mut buffer, mut is_writer, mut started) = (Vec::new(), false, false);
    loop {
        let mut bytes = vec![0; 64 * 1024];
        let read = tokio::select! {
            read = from.read(&mut bytes) => read.unwrap_or(0),
            () = link.cut.cancelled() => return,
        };
        if read == 0 {
            return;
        }
        if link.silence.is_cancelled() {
            continue;
        }
        buffer.extend_from_slice(&bytes[..read]);
        let mut whole = 0;
        while let Some(message) = next_message(&buffer[whole..], started) {
            let text = match message.first() {
                _ if !started && message == SSL_REQUEST => None,
                _ if !started => {
                    started = true;
                    is_writer = contains(message, b"synchronous_commit");
                    None
                }
                Some(b'P') => {
                    let mut parts = message[5..].split(|byte| *byte == 0);
                    let (name, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                    statements.insert(name.to_vec(), String::from_utf8_lossy(text).into_owned());
                    None
                }
                // The name of the statement follows the portal.
                Some(b'B') => message[5..].split(|byte| *byte == 0).nth(1).and_then(|name| statements.get(name)),
                _ => None,
            };
            let fault = text.and_then(|text| {
                let mut state = link.shared.state();
                let plan = state.plan.take_if(|plan| plan.on_writer == is_writer && (plan.recognizes)(text));
                plan.map(|plan| plan.fault)
            });
            match fault {
                None => {}
                Some(Fault::LoseAnswer) => link.loses.cancel(),
                Some(fault @ (Fault::HoldBack | Fault::Stall)) => {
                    let before = to.write_all(&buffer[..whole]).await;
                    before.expect("PostgreSQL is there");
                    link.keeps.cancel();
                    link.shared.state().held = Some(Held { bytes: buffer.split_off(whole), database: to });
                    link.shared.struck.send_modify(|count| *count += 1);
                    if fault == Fault::Stall {
                        // Everything else from the server is ignored, until it gives up.
                        while from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                    }
                    link.hangs_up.cancel();
                    return;
                }
            }
            whole += message.len();
        }
        if to.write_all(&buffer[..whole]).await.is_err() {
            return;
        }
        buffer.drain(..whole);
    }
}

/// Returns the first message, if it is complete. The message that starts a connection has no type.
fn next_message(buffer: &[u8], started: bool) -> Option<&[u8]> {
    let at = usize::from(started);
    let length = u32::from_be_bytes(buffer.get(at..at + 4)?.try_into().ok()?) as usize;
    buffer.get(..at + length)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
