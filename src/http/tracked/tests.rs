//! Writes that run to their end, wherever they run, and reads that do not.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, mpsc};
use tower::ServiceExt;

use super::*;

fn request(method: Method) -> Request {
    Request::builder().method(method).uri("/").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_panic_is_answered_for_reads_and_writes() {
    async fn handler() -> &'static str {
        panic!("a broken handler")
    }
    let tasks = TaskTracker::new();
    let router = Router::new().route("/", get(handler).post(handler)).layer(TrackedLayer::new(tasks));
    for method in [Method::GET, Method::POST] {
        let response = router.clone().oneshot(request(method)).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errcode"], "M_UNKNOWN");
    }
}

/// Calls a handler that waits, drops the call, lets the handler continue, and returns whether it finished.
async fn finishes_after_being_dropped(method: Method) -> bool {
    let (entered, mut is_entered) = mpsc::channel(1);
    let (finished, mut is_finished) = mpsc::channel(1);
    let gate = Arc::new(Semaphore::new(0));
    let behind_gate = gate.clone();
    let handler = tower::service_fn(move |_: Request| {
        let (entered, finished, gate) = (entered.clone(), finished.clone(), behind_gate.clone());
        async move {
            entered.send(()).await.unwrap();
            let _permit = gate.acquire().await.unwrap();
            finished.send(()).await.unwrap();
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });

    let tasks = TaskTracker::new();
    let mut service = TrackedLayer::new(tasks.clone()).layer(handler);
    let mut answer = service.call(request(method));
    tokio::select! {
        biased;
        _ = &mut answer => unreachable!("the handler waits"),
        _ = is_entered.recv() => {}
    }
    drop(answer);
    drop(service);
    gate.add_permits(1);
    tasks.close();
    tasks.wait().await;
    is_finished.recv().await.is_some()
}

#[tokio::test]
async fn writes_run_on_without_their_client_and_reads_do_not() {
    for method in [Method::PUT, Method::POST, Method::PATCH, Method::DELETE] {
        assert!(finishes_after_being_dropped(method).await);
    }
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        assert!(!finishes_after_being_dropped(method).await);
    }
}

#[tokio::test]
async fn a_write_is_counted_once_and_until_its_end_wherever_it_runs() {
    let gate = Arc::new(Semaphore::new(0));
    let behind_gate = gate.clone();
    let handler = tower::service_fn(move |_: Request| {
        let gate = behind_gate.clone();
        async move {
            let _permit = gate.acquire().await.unwrap();
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let tasks = TaskTracker::new();
    let mut service = TrackedLayer::new(tasks.clone()).waits_until(async || ()).layer(handler);
    let mut answer = service.call(request(Method::PUT));
    assert_eq!(tasks.len(), 1);
    assert_eq!((&mut answer).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(tasks.len(), 1, "it goes on in a task");
    gate.add_permits(1);
    tasks.close();
    // The future of the answer is still there, and nobody need wait for that.
    tasks.wait().await;
    drop(answer);
}

#[tokio::test]
async fn a_write_that_goes_on_stays_in_its_span() {
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry());
    let (told, mut spans) = mpsc::channel(2);
    let handler = tower::service_fn(move |_: Request| {
        let told = told.clone();
        async move {
            told.send(Span::current().id()).await.unwrap();
            tokio::task::yield_now().await;
            told.send(Span::current().id()).await.unwrap();
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let mut service = TrackedLayer::new(TaskTracker::new()).layer(handler);
    let span = tracing::info_span!("request");
    let answer = span.in_scope(|| service.call(request(Method::PUT)));
    // Its client has gone before the first poll.
    drop(answer);
    for _ in 0..2 {
        let found = spans.recv().await.unwrap();
        assert!(found.is_some() && found == span.id());
    }
}

#[test]
fn a_write_ends_with_its_runtime() {
    let (enter, entered) = std::sync::mpsc::channel();
    let held = Arc::new(());
    let held_inside = held.clone();
    let handler = tower::service_fn(move |_: Request| {
        let (enter, held) = (enter.clone(), held_inside.clone());
        async move {
            let _held = held;
            enter.send(()).unwrap();
            std::future::pending::<Result<Response, Infallible>>().await
        }
    });
    let tasks = TaskTracker::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.spawn(TrackedLayer::new(tasks.clone()).layer(handler).call(request(Method::POST)));
    entered.recv().unwrap();
    // The runtime drops the task, which leaves its handler to a new one, which the runtime does not run any more.
    drop(runtime);
    assert_eq!((Arc::strong_count(&held), tasks.len()), (1, 0));
}

#[tokio::test]
async fn a_write_that_takes_too_long_is_answered_and_goes_on() {
    let (finished, mut is_finished) = mpsc::channel(1);
    let gate = Arc::new(Semaphore::new(0));
    let behind_gate = gate.clone();
    let handler = tower::service_fn(move |_: Request| {
        let (finished, gate) = (finished.clone(), behind_gate.clone());
        async move {
            let _permit = gate.acquire().await.unwrap();
            finished.send(()).await.unwrap();
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let mut service = TrackedLayer::new(TaskTracker::new()).waits_until(async || ()).layer(handler);
    let response = service.call(request(Method::PUT)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    gate.add_permits(1);
    is_finished.recv().await.expect("the request goes on");

    // A request that finishes in time is answered with its result.
    gate.add_permits(1);
    let mut patient = TrackedLayer::new(TaskTracker::new()).waits_until(std::future::pending::<()>).layer(service);
    assert!(patient.call(request(Method::GET)).await.unwrap().status().is_success());
}
