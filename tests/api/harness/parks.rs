//! Watches syncs when they park.

use tokio::sync::mpsc;
use tracing::{Subscriber, span, subscriber::DefaultGuard};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// Reports when a sync parks. A test's server runs on the thread of the test, so its spans are visible there.
pub struct Parks {
    parks: mpsc::UnboundedReceiver<()>,
    _spans: DefaultGuard,
}

struct Watching(mpsc::UnboundedSender<()>);

impl<S: Subscriber> Layer<S> for Watching {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        if attributes.metadata().name() == "sync.park" {
            // An error means that the test is over.
            let _: Result<(), _> = self.0.send(());
        }
    }
}

impl Parks {
    /// Reports every sync that parks from now on.
    pub fn watch() -> Self {
        let (park, parks) = mpsc::unbounded_channel();
        Self { parks, _spans: tracing_subscriber::registry().with(Watching(park)).set_default() }
    }

    /// Waits until another sync has parked.
    ///
    /// # Panics
    /// When the spans are no longer watched.
    pub async fn next(&mut self) {
        self.parks.recv().await.expect("the spans are watched");
    }
}
