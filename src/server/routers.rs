//! The routers of a listener, and the layers around them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Request, http::Method};
use tower::util::MapRequestLayer;

use super::{current::CurrentLayer, forwarded, health, landing, request, setup, stage, well_known};
use crate::{
    app::App,
    client_api,
    config::{Listener, Resource},
    endpoint::Routes,
    federation_api,
    http::{cors::CorsLayer, shutdown::Shutdown, tracked::TrackedLayer},
    store::{Write, committer::Health},
    synapse_admin,
};

/// The timeout for the database to answer one query. A load balancer asks every few seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// The router with everything that a listener of the configuration serves. `client_address` is the bound address of the
/// first listener for clients.
pub fn public(app: &App, listener: &Listener, client_address: Option<SocketAddr>, shutdown: &Shutdown) -> Router {
    let serves_clients = listener.serves(Resource::Client);
    let mut api = if serves_clients { client_api::routes() } else { Routes::default() };
    // Without federation its endpoints do not exist.
    if listener.serves(Resource::Federation) && app.federation.is_some() {
        api = api.merge(federation_api::routes());
    }
    // The path exists only if the feature is on, so that clients cannot tell whether we have the feature.
    if serves_clients && app.accounts.has_shared_secret() {
        api = api.merge(synapse_admin::routes());
    }
    let mut open_to_browsers = api.into_router().with_state(app.clone());
    if listener.serves(Resource::WellKnown) {
        open_to_browsers = open_to_browsers.merge(well_known::router(&app.config, client_address));
    }
    // The CORS layer is outside: browsers must also be able to read answers that the other layer makes itself.
    // Layers in one call share one boxed future, which a parked request keeps.
    let current = CurrentLayer(app.db.committer().clone());
    let open_to_browsers = open_to_browsers.layer((CorsLayer, current, tracked(app, shutdown)));
    let mut ours = health_of(app);
    if serves_clients {
        ours = ours
            .merge(landing::router(app, client_address))
            .merge(setup::router(app, client_address))
            .merge(stage::router(app, client_address));
    }
    let listener = Arc::new(listener.clone());
    let believe = MapRequestLayer::new(move |request: Request| forwarded::believe(&listener, request));
    open_to_browsers.merge(ours.layer(tracked(app, shutdown))).layer((believe, request::TraceLayer))
}

/// The layer that runs writing requests to their end, and answers early if the database does not answer.
fn tracked(app: &App, shutdown: &Shutdown) -> TrackedLayer {
    let committer = app.db.committer().clone();
    TrackedLayer::new(shutdown.tasks().clone()).waits_until(move || {
        let committer = committer.clone();
        async move { committer.unanswered().await }
    })
}

/// All routes of [`public`] with every feature switched on.
pub fn routes() -> Vec<(Method, &'static str)> {
    let api = client_api::routes().merge(federation_api::routes()).merge(synapse_admin::routes());
    let mut routes = api.list().to_vec();
    routes.extend(well_known::ROUTES);
    routes.extend(health::ROUTES);
    routes.extend(landing::ROUTES);
    routes.extend(setup::ROUTES);
    routes.extend(stage::routes());
    routes
}

/// `/health` and `/ready` for this server.
fn health_of(app: &App) -> Router {
    let (app, of_identity) = (app.clone(), app.clone());
    let identity = move || health::Identity {
        server_name: of_identity.config.server_name.to_string(),
        key_id: of_identity.signer.key_id().to_string(),
    };
    health::router(
        identity,
        Arc::new(move || {
            let app = app.clone();
            Box::pin(async move {
                let database = match tokio::time::timeout(READY_TIMEOUT, app.db.engine()).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(_)) => Err("the database does not answer".to_owned()),
                    Err(_) => Err(format!("the database did not answer within {} s", READY_TIMEOUT.as_secs())),
                };
                let committer = committer_of(&app).await;
                let stopping = if app.stopping.is_cancelled() { Err("stopping".to_owned()) } else { Ok(()) };
                vec![("database", database), ("committer", committer), ("server", stopping)]
            })
        }),
    )
}

/// Checks whether writes are stored at present, and reads are current.
async fn committer_of(app: &App) -> Result<(), String> {
    let committer = app.db.committer();
    if committer.health() == Health::DiskFull {
        // A probe write: if a load balancer sends no requests, no other write would find out that there is disk space
        // again.
        let probe = committer.write(Write::default());
        let _: Result<_, _> = tokio::time::timeout(READY_TIMEOUT, probe).await;
    }
    let current = tokio::time::timeout(READY_TIMEOUT, committer.current()).await;
    match committer.health() {
        Health::Working if matches!(current, Ok(Ok(()))) => Ok(()),
        Health::Working => Err("the database does not say whether another process writes to it".to_owned()),
        Health::Waiting => Err("the database does not answer".to_owned()),
        Health::DiskFull => Err("the disk of the database is full".to_owned()),
        Health::Following => Err("another process writes to the database".to_owned()),
        Health::Ended(ended) => Err(ended.to_string()),
    }
}
