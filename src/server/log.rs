//! What the server writes to its standard error.

use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, registry::Registry, util::SubscriberInitExt as _,
};

use crate::config::{Log, LogFormat};

/// Ruma reports every authorization check at `info`, two lines for each event, and makes a span of every field that push
/// rules look at. Neither is written, unless somebody asks for it.
const CHATTY: [&str; 2] = ["ruma_state_res", "ruma_common::push"];

/// From here on, what is traced is written. Once in a process; later calls change nothing.
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
    // Another subscriber is a test's, and stays.
    let _ = Registry::default().with(layer).try_init();
}
