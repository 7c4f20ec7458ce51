//! Denied addresses must be unreachable in every way: written out, mapped, by DNS, by a redirect, by a second answer.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use http::{StatusCode, header::LOCATION};
use url::Url;

use super::{fetch::redirect, resolve::Lookup, *};

const LIMITS: Limits = Limits { time: Duration::from_secs(20), body_bytes: 1000, redirects: 2 };

/// A web server on loopback that always gives the same answer and counts its visits.
struct Web {
    port: u16,
    visits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Web {
    /// Starts a server. `PORT` in the answer is replaced with the server's port.
    async fn answering(answer: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = answer.replace("PORT", &port.to_string());
        let visits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&visits);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let mut request = vec![0; 4096];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { port, visits, _tasks: tasks }
    }

    async fn ok() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

/// A resolver that gives its answers one after the other; the last one is repeated.
struct Dns(Vec<Vec<IpAddr>>, AtomicUsize);

impl Resolve for Dns {
    fn addresses<'a>(&'a self, _: &'a str) -> Lookup<'a, IpAddr> {
        let asked = self.1.fetch_add(1, Ordering::SeqCst);
        let answer = self.0.get(asked).or(self.0.last()).cloned();
        Box::pin(async move { answer.ok_or(ResolveError::Unknown) })
    }

    fn services<'a>(&'a self, _: &'a str) -> Lookup<'a, Service> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn outbound(config: &config::Outbound, answers: &[&[&str]]) -> (Outbound, Arc<Dns>) {
    let answers = answers.iter().map(|answer| answer.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
    let dns = Arc::new(Dns(answers, AtomicUsize::new(0)));
    (Outbound::with_resolver(config, &[], Arc::clone(&dns) as Arc<dyn Resolve>).unwrap(), dns)
}

fn allowing(allow: &[&str]) -> config::Outbound {
    config::Outbound {
        allow: allow.iter().map(|range| range.parse().unwrap()).collect(),
        ..config::Outbound::default()
    }
}

async fn get(outbound: &Outbound, url: &str) -> Result<Response<Bytes>, OutboundError> {
    outbound.get(&url.parse().unwrap(), Trust::Public, LIMITS).await
}

#[tokio::test]
async fn a_denied_address_is_not_connected_to_however_it_is_written() {
    let web = Web::ok().await;
    let (outbound, _) = outbound(&config::Outbound::default(), &[]);
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "127.0.0.1.",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
    ] {
        let result = get(&outbound, &format!("http://{host}:{}/", web.port)).await;
        assert!(matches!(result, Err(OutboundError::Denied { .. })), "{host}: {result:?}");
    }
    assert_eq!(web.visits(), 0);
}

#[tokio::test]
async fn a_name_with_a_denied_address_is_not_connected_to() {
    let web = Web::ok().await;
    let url = format!("http://inside.test:{}/", web.port);
    for answer in [&["127.0.0.1"][..], &["::1", "::ffff:127.0.0.1"], &["169.254.169.254"], &["10.0.0.1", "0.0.0.0"]] {
        let (outbound, _) = outbound(&config::Outbound::default(), &[answer]);
        assert!(matches!(get(&outbound, &url).await, Err(OutboundError::Denied { .. })), "{answer:?}");
    }
    assert_eq!(web.visits(), 0);
}

#[tokio::test]
async fn of_several_addresses_only_permitted_ones_are_tried() {
    let web = Web::ok().await;
    let (outbound, _) = outbound(&allowing(&["127.0.0.1"]), &[&["127.0.0.2", "10.0.0.1", "127.0.0.1"]]);
    assert_eq!(get(&outbound, &format!("http://mixed.test:{}/", web.port)).await.unwrap().body(), "hi");
    assert_eq!(web.visits(), 1);
}

#[tokio::test]
async fn an_answer_that_changes_after_the_check_changes_nothing() {
    let web = Web::ok().await;
    // The first answer is permitted and checked. A second lookup before connecting would get the other answer.
    let (outbound, dns) = outbound(&allowing(&["127.0.0.1"]), &[&["127.0.0.1"], &["127.0.0.2"]]);
    let url = format!("http://rebinding.test:{}/", web.port);
    assert_eq!(get(&outbound, &url).await.unwrap().status(), StatusCode::OK);
    assert_eq!(dns.1.load(Ordering::SeqCst), 1);
    // The next request checks the next answer.
    assert!(matches!(get(&outbound, &url).await, Err(OutboundError::Denied { .. })));
    assert_eq!(web.visits(), 1);
}

#[tokio::test]
async fn each_redirect_is_checked_again() {
    let inside = Web::ok().await;
    for target in ["127.0.0.2", "[::1]", "[::ffff:127.0.0.2]", "2130706434", "inside.test"] {
        let location = format!("http://{target}:{}/", inside.port);
        let redirecting =
            Web::answering(&format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")).await;
        let (outbound, _) = outbound(&allowing(&["127.0.0.1"]), &[&["127.0.0.2"]]);
        let result = get(&outbound, &format!("http://127.0.0.1:{}/", redirecting.port)).await;
        assert!(matches!(result, Err(OutboundError::Denied { .. })), "{target}: {result:?}");
        assert_eq!(redirecting.visits(), 1);
    }
    assert_eq!(inside.visits(), 0);
}

#[tokio::test]
async fn redirects_end() {
    let web = Web::answering("HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:PORT/\r\ncontent-length: 0\r\n\r\n").await;
    let (outbound, _) = outbound(&allowing(&["127.0.0.1"]), &[]);
    let result = get(&outbound, &format!("http://127.0.0.1:{}/", web.port)).await;
    assert!(matches!(result, Err(OutboundError::TooManyRedirects(2))), "{result:?}");
    assert_eq!(web.visits(), 3);
}

#[test]
fn a_redirect_leads_to_the_web_and_never_from_tls_to_plain() {
    let check = |from: &str, location: &str, expected: Option<&str>| {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert(LOCATION, location.parse().unwrap());
        let found = redirect(&from.parse().unwrap(), &response).ok().flatten();
        assert_eq!(found.as_ref().map(Url::as_str), expected, "{location}");
    };
    check("https://a.test/x", "https://b.test/", Some("https://b.test/"));
    check("https://a.test/x", "/y", Some("https://a.test/y"));
    check("http://a.test/x", "http://b.test/", Some("http://b.test/"));
    check("https://a.test/x", "http://b.test/", None);
    check("https://a.test/x", "file:///etc/passwd", None);
    check("https://a.test/x", "gopher://b.test/", None);
}

#[tokio::test]
async fn an_answer_has_its_bounds() {
    let (outbound, _) = outbound(&allowing(&["127.0.0.1"]), &[]);
    let long = format!("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n{}", "x".repeat(1001));
    let web = Web::answering(&long).await;
    let result = get(&outbound, &format!("http://127.0.0.1:{}/", web.port)).await;
    assert!(matches!(result, Err(OutboundError::TooLarge { limit_bytes: 1000 })), "{result:?}");

    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://127.0.0.1:{}/", silent.local_addr().unwrap().port());
    let limits = Limits { time: Duration::from_millis(50), ..LIMITS };
    let result = outbound.get(&url.parse().unwrap(), Trust::Public, limits).await;
    assert!(matches!(result, Err(OutboundError::TimedOut(_))), "{result:?}");
}

#[tokio::test]
async fn the_static_map_stands_for_dns_but_not_for_permission() {
    let web = Web::ok().await;
    let mut config = config::Outbound::default();
    config.hosts.insert("mapped.test", format!("127.0.0.1:{}", web.port).parse().unwrap());
    let (refusing, dns) = outbound(&config, &[]);
    assert!(matches!(get(&refusing, "http://mapped.test/").await, Err(OutboundError::Denied { .. })));
    config.allow = allowing(&["127.0.0.1"]).allow;
    let (permitting, _) = outbound(&config, &[]);
    assert_eq!(get(&permitting, "http://MAPPED.test/").await.unwrap().body(), "hi");
    assert_eq!(dns.1.load(Ordering::SeqCst), 0);
    assert!(matches!(get(&permitting, "http://other.test/").await, Err(OutboundError::NotFound { .. })));
}
