//! The text that a start prints for the person who started it.

use std::io::Write;

use tracing::{info, warn};

use super::{run::Server, start::StartError};
use crate::config::{DatabaseTarget, Loaded};

/// Prints to `output` what was started, its addresses, and how to make the first account if there is none.
///
/// # Errors
/// Only database errors. A failed write to `output` does not stop the server.
pub(super) async fn announce(
    server: &Server,
    loaded: &Loaded,
    created: bool,
    output: &mut (dyn Write + Send),
) -> Result<(), StartError> {
    let config = &server.app.config;
    let engine = server.app.db.engine().await?;
    let mut text = text(server, loaded, &engine, created);
    if !server.app.accounts.has_any_account().await? {
        // Only here, never in the log: anyone who reads the secret can make the first admin.
        let secret = server.app.accounts.create_setup_secret().await?;
        text.push_str(&first_steps(&server.client_base_url(), server.local_base_url().as_deref(), &secret));
    }
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    info!(server_name = %config.server_name, engine, version = env!("CARGO_PKG_VERSION"), "ready");
    Ok(())
}

/// The instructions for the first account. The name of a new server often does not resolve yet, so the local address is
/// included too.
fn first_steps(base_url: &str, local_base_url: Option<&str>, secret: &str) -> String {
    let port = |url: &str| url.rsplit(':').next().map(str::to_owned);
    let local = match local_base_url {
        // `http://localhost:8008` is the same address under another name.
        Some(local) if !(base_url.contains("://localhost:") && port(base_url) == port(local)) => {
            format!("or, before the name and its proxy work, in a browser on this machine:\n  {local}/setup#{secret}\n")
        }
        _ => String::new(),
    };
    format!(
        "\nThere is no account yet. Make the first admin within an hour, here:\n  {base_url}/setup#{secret}\n{local}\
         or, at any time, in a terminal: sabha user create NAME --admin\n"
    )
}

fn text(server: &Server, loaded: &Loaded, engine: &str, created: bool) -> String {
    let config = &server.app.config;
    let base_url = server.client_base_url();
    let from = match &loaded.files[..] {
        [] if config.is_local() => "local mode, no configuration".to_owned(),
        [] => "no configuration file".to_owned(),
        files => files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    let database = match config.database_url().target() {
        DatabaseTarget::Sqlite(path) => format!("{} ({engine})", path.display()),
        DatabaseTarget::Postgres(url) => format!("{url} ({engine})"),
    };
    let data_dir = config.data_dir.display();
    let created = if created { " (created)" } else { "" };
    let mut text = format!(
        "Sabha {} serves {} ({from})\n  data      {data_dir}{created}\n  database  {database}\n",
        env!("CARGO_PKG_VERSION"),
        config.server_name,
    );
    for address in &server.addresses {
        text.push_str(&format!("  listens   {address}\n"));
    }
    // The address on this machine: a health check must not depend on a proxy, and a new name may not resolve yet.
    let here = server.local_base_url().filter(|_| !config.is_local()).unwrap_or_else(|| base_url.clone());
    text.push_str(&format!("  clients   {base_url}\n  health    {here}/health\n"));
    if let Some(address) = server.metrics_address {
        text.push_str(&format!("  metrics   http://{address}/metrics\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_may_lead_nowhere_is_not_the_only_way_to_the_first_admin() {
        let check = |base_url: &str, local: Option<&str>, expected: &[&str]| {
            let text = first_steps(base_url, local, "s3cret");
            let links: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_suffix("/setup#s3cret")).collect();
            assert_eq!(links, expected, "{text}");
        };
        check("https://example.com", Some("http://127.0.0.1:8008"), &["https://example.com", "http://127.0.0.1:8008"]);
        check("http://localhost:8008", Some("http://127.0.0.1:8008"), &["http://localhost:8008"]);
        check("http://localhost:8008", Some("http://[::1]:8008"), &["http://localhost:8008"]);
        check("https://example.com", None, &["https://example.com"]);
    }
}
