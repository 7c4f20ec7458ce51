//! Counts the spans of a server, which are the steps of its work.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tracing::{Subscriber, span, subscriber::DefaultGuard};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

type Counts = Arc<Mutex<BTreeMap<&'static str, usize>>>;

/// The number of spans by name. A test's server runs on the thread of the test, so its spans are visible there.
pub struct Spans {
    counts: Counts,
    _spans: DefaultGuard,
}

struct Counting(Counts);

impl<S: Subscriber> Layer<S> for Counting {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        *self.0.lock().expect("nobody panics with it").entry(attributes.metadata().name()).or_default() += 1;
    }
}

impl Spans {
    /// Counts every span from now on.
    pub fn count() -> Self {
        let counts = Counts::default();
        let layer = Counting(Arc::clone(&counts));
        Self { counts, _spans: tracing_subscriber::registry().with(layer).set_default() }
    }

    /// The number of spans with this name so far.
    pub fn of(&self, name: &str) -> usize {
        self.counts.lock().expect("nobody panics with it").get(name).copied().unwrap_or_default()
    }
}
