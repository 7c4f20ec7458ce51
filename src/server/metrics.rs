//! Metrics for Prometheus: the values that the code records with the `metrics` crate, and the system's values for our
//! process.
//!
//! Served on a separate listener, which is on loopback unless the configuration moves it: the address decides who may
//! read it.

mod process;

use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// The interval at which recorded durations are added to their histograms. Each duration is kept until then, so a
/// server that is never scraped would otherwise grow without end.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Bounds of every histogram, in seconds: from a cached read to a join over a slow network.
const BUCKETS_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// The reason why metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error("could not set up the metrics recorder")]
    Build(#[from] BuildError),
    #[error("another metrics recorder is installed in this process")]
    Installed,
}

/// The metrics recorded so far. Clones read the same values.
#[derive(Clone)]
pub struct Metrics {
    recorded: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder of the whole process. Call it once, before anything is recorded.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn install() -> Result<Self, MetricsError> {
        let recorder = recorder()?;
        let metrics = Self { recorded: recorder.handle() };
        metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Installed)?;
        record_build_info();
        Ok(metrics)
    }

    /// Keeps the memory of the recorder bounded. Run it in a task for as long as the process lives.
    pub async fn upkeep(self) {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            self.recorded.run_upkeep();
        }
    }

    /// `GET /metrics`, and the same at the path that Synapse's dashboards and scrape configurations use.
    pub fn router(self) -> Router {
        let page = get(async move || {
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.render()).into_response()
        });
        Router::new().route("/metrics", page.clone()).route("/_synapse/metrics", page)
    }

    fn render(&self) -> String {
        let mut text = self.recorded.render();
        process::append_to(&mut text);
        text
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new().set_buckets(&BUCKETS_SECONDS)?.build_recorder())
}

fn record_build_info() {
    metrics::describe_gauge!("sabha_build_info", "Which Sabha this is, in the labels; always 1.");
    metrics::describe_gauge!("sabha_memory_bytes", "Bytes in each cache of the memory budget.");
    metrics::describe_gauge!(
        "sabha_log_cursor_lag_positions",
        "Positions of the commit log that a consumer has not done."
    );
    metrics::describe_gauge!("sabha_log_cursor_lag_seconds", "Seconds that the oldest of them has waited.");
    metrics::gauge!("sabha_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn both_paths_show_what_was_recorded_and_the_process() {
        let recorder = recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            record_build_info();
            metrics::histogram!("sabha_test_seconds").record(0.002);
        });
        let router = Metrics { recorded: recorder.handle() }.router();
        for path in ["/metrics", "/_synapse/metrics"] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            let version = format!("sabha_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
            for expected in [version.as_str(), "sabha_test_seconds_bucket{le=\"0.0025\"} 1", "\nprocess_open_fds "] {
                assert!(text.contains(expected), "{expected} is missing in\n{text}");
            }
        }
    }
}
