//! A small internet: names, addresses, certificates, and servers that can find each other.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use http::{Method, Request};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ruma::ServerName;
use sabha::{
    config::{Config, Listener, Tls},
    outbound::Outbound,
};
use sabha_federation::{ServerSigner, x_matrix};
use tempfile::TempDir;

use crate::harness::{Builder, Client, Engine, Response, TestServer};

/// The port of a server whose name and delegation give no other.
const FEDERATION_PORT: u16 = 8448;

/// Host names with addresses, and a certificate authority for them.
pub struct Network {
    authority: CertifiedIssuer<'static, KeyPair>,
    hosts: Vec<(&'static str, SocketAddr)>,
    files: TempDir,
}

impl Network {
    /// Creates a network in which every name has its own loopback address, so that all can use the same port.
    pub fn of(names: &[&'static str]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let files = tempfile::Builder::new().prefix("sabha-network-").tempdir().expect("a temporary directory");
        let hosts =
            names.iter().map(|name| (*name, SocketAddr::new(unused_address().into(), FEDERATION_PORT))).collect();
        let network = Self { authority, hosts, files };
        std::fs::write(network.ca_file(), network.authority.pem()).expect("a writable directory");
        network
    }

    pub fn ca_file(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        let found = self.hosts.iter().find(|(host, _)| *host == name);
        found.unwrap_or_else(|| panic!("{name} is not in this network")).1
    }

    /// Writes a certificate for `name` to files.
    pub fn tls(&self, name: &str) -> Tls {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a host name");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        let write = |ending: &str, text: String| {
            let path = self.files.path().join(format!("{name}.{ending}"));
            std::fs::write(&path, text).expect("a writable directory");
            path
        };
        Tls { certificate: write("crt", certificate.pem()), key: write("key", key.serialize_pem()) }
    }

    /// Makes a server a member of the network. Clients use its first listener, servers its second.
    pub fn join(&self, name: &'static str) -> impl FnOnce(&mut Config) {
        let tls = self.tls(name);
        let address = self.address(name);
        move |config| {
            config.server_name = ServerName::parse(name).expect("a server name");
            config.listeners.push(Listener { tls: Some(tls), ..Listener::tcp(address) });
            self.configure(config);
        }
    }

    /// Lets a server reach the network.
    pub fn configure(&self, config: &mut Config) {
        config.federation.enabled = true;
        config.federation.ca_files = vec![self.ca_file()];
        config.outbound.allow = vec!["127.0.0.0/8".parse().expect("a range")];
        for (name, address) in &self.hosts {
            config.outbound.hosts.insert(name, (*address).into());
        }
    }

    /// The HTTP client of a server in the network that may connect to these addresses.
    pub fn outbound(&self, allow: &[&str]) -> Outbound {
        let mut config = Config::default();
        self.configure(&mut config);
        config.outbound.allow = allow.iter().map(|range| range.parse().expect("a range")).collect();
        Outbound::new(&config.outbound, &config.federation.ca_files).expect("the network's own authority")
    }

    pub fn builder(&self, engine: Engine, name: &'static str) -> Builder {
        TestServer::builder().engine(engine).config(self.join(name))
    }

    pub async fn start(&self, engine: Engine, name: &'static str) -> TestServer {
        self.builder(engine, name).start().await
    }
}

/// Returns an address below 127.0.0.0/8, all of which is this machine. The process ID separates test processes, a
/// counter the networks within one.
fn unused_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(next < 255, "this process has used all its addresses");
    Ipv4Addr::new(127, 100 + high % 100, low, next as u8)
}

/// Returns the header with which the owner of `signer` would send this request to `destination`.
pub fn authorization(signer: &ServerSigner, destination: &str, method: Method, path: &str, body: &str) -> String {
    let mut request = Request::builder().method(method).uri(path).body(body.to_owned()).expect("a request");
    let destination = ServerName::parse(destination).expect("a server name");
    x_matrix::sign_request(signer, &destination, &mut request).expect("JSON");
    request.headers()[http::header::AUTHORIZATION].to_str().expect("ASCII").to_owned()
}

/// Sends a `GET` that the owner of `signer` has signed.
pub async fn get_as(client: &Client, signer: &ServerSigner, destination: &str, path: &str) -> Response {
    let authorization = authorization(signer, destination, Method::GET, path, "");
    client.request_as(Some(&authorization), Method::GET, path, None).await
}

/// Returns the signing key of a server.
pub fn signer(server: &TestServer) -> &ServerSigner {
    &server.app().signer
}

/// Generates another key under the same name and ID, as an attacker would.
pub fn forged(server: &TestServer) -> ServerSigner {
    let real = signer(server);
    let other = ServerSigner::generate(real.server_name().to_owned()).to_key_file();
    let seed = other.split_whitespace().last().expect("a key file has three words").to_owned();
    let text = format!("ed25519 {} {seed}\n", real.key_id().key_name());
    ServerSigner::from_key_file(real.server_name().to_owned(), &text).expect("a key file")
}
