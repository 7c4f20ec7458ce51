//! The log that the server writes to its standard error.

use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, registry::Registry, util::SubscriberInitExt as _,
};

use crate::config::{Log, LogFormat};

/// Targets that log too much. Ruma reports every authorization check at `info`, two lines per event, and opens a span
/// for every field that push rules read. Neither is logged unless the filter names it.
const CHATTY: [&str; 2] = ["ruma_state_res", "ruma_common::push"];

/// Starts to write traces to the log. Works once per process; later calls change nothing.
pub fn install(config: &Log) {
    // `Config::validate` has parsed it already.
    let mut filter: Targets =
        config.filter.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    for target in CHATTY {
        if !config.filter.contains(target) {
            filter = filter.with_target(target, tracing::Level::WARN);
        }
    }
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let layer = match config.format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    // A subscriber that is already installed belongs to a test and stays.
    let _ = Registry::default().with(layer).try_init();
}
