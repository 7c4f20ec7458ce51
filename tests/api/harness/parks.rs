//! Syncs that park, as they do.

use tokio::sync::mpsc;
use tracing::{Subscriber, span, subscriber::DefaultGuard};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// Says when a sync parks. A test's server runs on the thread of the test, so its spans are seen there.
pub struct Parks {
    parks: mpsc::UnboundedReceiver<()>,
    _spans: DefaultGuard,
}

struct Watching(mpsc::UnboundedSender<()>);

impl<S: Subscriber> Layer<S> for Watching {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        if attributes.metadata().name() == "sync.park" {
            // Nobody listens any more: the test is over.
            let _: Result<(), _> = self.0.send(());
        }
    }
}

impl Parks {
    /// Sees every sync that parks from now on.
    pub fn watch() -> Self {
        let (park, parks) = mpsc::unbounded_channel();
        Self { parks, _spans: tracing_subscriber::registry().with(Watching(park)).set_default() }
    }

    /// Waits until one more has parked.
    ///
    /// # Panics
    /// When nobody watches the spans any more.
    pub async fn next(&mut self) {
        self.parks.recv().await.expect("the spans are watched");
    }
}
