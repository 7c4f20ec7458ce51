//! The log that the server writes to its standard error.

use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    registry::Registry,
    util::SubscriberInitExt as _,
};

use crate::config::{Log, LogFormat};

/// Targets that log too much, and the level from which on they are logged, unless the filter names them.
const CHATTY: [(&str, LevelFilter); 4] = [
    // Every authorization check at `info`, two lines per event, and a span for every field that push rules read.
    ("ruma_state_res", LevelFilter::WARN),
    ("ruma_common::push", LevelFilter::WARN),
    // Warnings that a client can cause as often as it likes: with resets of streams, and with odd handshakes.
    ("h2", LevelFilter::ERROR),
    ("rustls", LevelFilter::ERROR),
];

/// Starts to write traces to the log. Works once per process; later calls change nothing.
pub fn install(config: &Log) {
    let filter = targets(&config.filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let layer = match config.format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    // A subscriber that is already installed belongs to a test and stays.
    let _ = Registry::default().with(layer).try_init();
}

/// The filter of the configuration, with less of the targets that log too much.
fn targets(filter: &str) -> Targets {
    // `Config::validate` has parsed it already.
    let mut targets: Targets = filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let of_others = targets.default_level().unwrap_or(LevelFilter::OFF);
    for (chatty, level) in CHATTY {
        let is_named = targets.iter().any(|(target, _)| target.starts_with(chatty));
        if !is_named {
            targets = targets.with_target(chatty, level.min(of_others));
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn warnings_that_clients_can_cause_are_logged_only_on_demand() {
        let is_logged = |filter: &str, target: &str, level: Level| targets(filter).would_enable(target, &level);
        let resets = ["h2::proto::streams::recv", "rustls::check"];
        for target in resets {
            for filter in ["info", "debug", "info,sabha=debug", "info,auth2=debug"] {
                assert!(!is_logged(filter, target, Level::WARN), "{filter} {target}");
                assert!(is_logged(filter, target, Level::ERROR), "{filter} {target}");
            }
            for filter in ["info,h2=warn,rustls=debug", "h2::proto=trace,rustls::check=warn"] {
                assert!(is_logged(filter, target, Level::WARN), "{filter} {target}");
            }
            assert!(!is_logged("off", target, Level::ERROR), "{target}");
        }
        assert!(is_logged("info", "ruma_state_res", Level::WARN) && !is_logged("info", "ruma_state_res", Level::INFO));
        assert!(!is_logged("error", "ruma_state_res", Level::WARN));
        assert!(is_logged("info,ruma_state_res=debug", "ruma_state_res::events", Level::DEBUG));
        assert!(is_logged("info", "sabha::http", Level::INFO) && !is_logged("info", "sabha::http", Level::DEBUG));
    }
}
