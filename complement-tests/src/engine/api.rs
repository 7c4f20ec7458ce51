//! The part of Docker's API that Complement uses: each request becomes one call of [`World`], answered with JSON.
//!
//! The paths begin with a version (`/v1.45`), which is ignored.

use std::{collections::HashMap, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{any, delete, get, post, put},
};
use bytes::Bytes;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    labels::{Filters, Labels, parse_change},
    world::{Draft, Refusal, World},
};

/// The newest API version that we know, returned to a client that asks.
const VERSION: &str = "1.45";
/// Docker's timeout for a stop without `t`.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn router(world: World) -> Router {
    let api = Router::new()
        .route("/_ping", any(ping))
        .route("/containers/json", get(list_containers))
        .route("/containers/create", post(create_container))
        .route("/containers/{id}", delete(remove_container))
        .route("/containers/{id}/json", get(inspect_container))
        .route("/containers/{id}/archive", put(unpack).layer(DefaultBodyLimit::disable()))
        .route("/containers/{id}/start", post(start_container))
        .route("/containers/{id}/stop", post(stop_container))
        .route("/containers/{id}/kill", post(kill_container))
        .route("/containers/{id}/pause", post(pause_container))
        .route("/containers/{id}/unpause", post(unpause_container))
        .route("/containers/{id}/logs", get(logs))
        .route("/commit", post(commit))
        .route("/images/json", get(list_images))
        .route("/images/{id}", delete(remove_image))
        .route("/networks", get(list_networks))
        .route("/networks/create", post(create_network))
        .route("/networks/{id}", delete(remove_network));
    Router::new().route("/_ping", any(ping)).nest("/{version}", api).with_state(world)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "message": self.to_string() }))).into_response()
    }
}

type Done = Result<StatusCode, Refusal>;
type Pairs = Query<HashMap<String, String>>;

#[derive(Deserialize)]
struct ById {
    id: String,
}

async fn ping() -> impl IntoResponse {
    ([("Api-Version", VERSION), ("OSType", "linux")], "OK")
}

fn filters(query: &HashMap<String, String>) -> Result<Filters, Refusal> {
    Filters::parse(query.get("filters").map(String::as_str))
        .ok_or_else(|| Refusal::Invalid("filters is not JSON".to_owned()))
}

async fn list_containers(State(world): State<World>, Query(query): Pairs) -> Result<Json<Value>, Refusal> {
    let filters = filters(&query)?;
    let all = query.get("all").is_some_and(|all| all == "1" || all == "true");
    let state = world.state();
    let found = state.containers.values().filter(|container| filters.match_all(&container.labels));
    Ok(Json(found.filter(|container| all || container.is_running()).map(|container| container.summary()).collect()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NewContainer {
    image: String,
    #[serde(default)]
    labels: Option<Labels>,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    networking_config: Option<NetworkingConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkingConfig {
    #[serde(default)]
    endpoints_config: HashMap<String, Endpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    #[serde(default)]
    aliases: Option<Vec<String>>,
}

async fn create_container(
    State(world): State<World>,
    Query(mut query): Pairs,
    Json(body): Json<NewContainer>,
) -> Result<impl IntoResponse, Refusal> {
    let name = query.remove("name").ok_or_else(|| Refusal::Invalid("a container needs a name".to_owned()))?;
    let endpoints = body.networking_config.map(|config| config.endpoints_config).unwrap_or_default();
    let (network, endpoint) =
        endpoints.into_iter().next().ok_or_else(|| Refusal::Invalid("a container needs a network".to_owned()))?;
    let alias = endpoint.aliases.unwrap_or_default().into_iter().next().unwrap_or_default();
    let labels = body.labels.unwrap_or_default();
    let env = body.env.unwrap_or_default();
    let id = world.create(Draft { name, image: body.image, labels, env, network, alias }).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id, "Warnings": [] }))))
}

async fn inspect_container(State(world): State<World>, Path(path): Path<ById>) -> Result<Json<Value>, Refusal> {
    let state = world.state();
    let found = state.containers.values().find(|container| container.id == path.id || container.name == path.id);
    let found = found.ok_or_else(|| Refusal::NotFound(format!("container: {}", path.id)))?;
    Ok(Json(found.describe()))
}

async fn remove_container(State(world): State<World>, Path(path): Path<ById>, Query(query): Pairs) -> Done {
    let force = query.get("force").is_some_and(|force| force == "1" || force == "true");
    world.remove(&path.id, force).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unpack(State(world): State<World>, Path(path): Path<ById>, archive: Bytes) -> Done {
    world.unpack(&path.id, &archive)?;
    Ok(StatusCode::OK)
}

async fn start_container(State(world): State<World>, Path(path): Path<ById>) -> Done {
    world.start(&path.id)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop_container(State(world): State<World>, Path(path): Path<ById>, Query(query): Pairs) -> Done {
    let patience = query.get("t").and_then(|seconds| seconds.parse().ok()).map_or(PATIENCE, Duration::from_secs);
    world.stop(&path.id, patience).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn kill_container(State(world): State<World>, Path(path): Path<ById>, Query(query): Pairs) -> Done {
    let signal = query.get("signal").map_or("KILL", String::as_str);
    let signal = match signal.trim_start_matches("SIG") {
        "KILL" => Signal::KILL,
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "HUP" => Signal::HUP,
        _ => return Err(Refusal::Invalid(format!("unknown signal {signal}"))),
    };
    world.kill(&path.id, signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn pause_container(State(world): State<World>, Path(path): Path<ById>) -> Done {
    world.pause(&path.id, true)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unpause_container(State(world): State<World>, Path(path): Path<ById>) -> Done {
    world.pause(&path.id, false)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the whole log as one frame of Docker's multiplexed stream: one byte for the stream (1 is standard output),
/// three zeros, the length, the bytes.
async fn logs(State(world): State<World>, Path(path): Path<ById>) -> Result<impl IntoResponse, Refusal> {
    let mut log = world.logs(&path.id)?;
    log.truncate(u32::MAX as usize);
    let mut frame = vec![1, 0, 0, 0];
    frame.extend(u32::try_from(log.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.append(&mut log);
    Ok(([(CONTENT_TYPE, "application/vnd.docker.multiplexed-stream")], frame))
}

async fn commit(
    State(world): State<World>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<impl IntoResponse, Refusal> {
    let value = |key: &str| query.iter().find(|(has, _)| has == key).map(|(_, value)| value.as_str());
    let container = value("container").ok_or_else(|| Refusal::Invalid("commit of which container?".to_owned()))?;
    let tag = format!("{}:{}", value("repo").unwrap_or_default(), value("tag").unwrap_or("latest"));
    let mut changes = Labels::new();
    for (_, change) in query.iter().filter(|(key, _)| key == "changes") {
        let (key, value) = parse_change(change).ok_or_else(|| Refusal::Invalid(format!("unknown change: {change}")))?;
        changes.insert(key, value);
    }
    let id = world.commit(container, tag, changes).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))))
}

async fn list_images(State(world): State<World>, Query(query): Pairs) -> Result<Json<Value>, Refusal> {
    let filters = filters(&query)?;
    let state = world.state();
    let found = state.images.values().filter(|image| filters.match_all(&image.labels));
    Ok(Json(found.map(|image| json!({ "Id": image.id, "RepoTags": [image.tag], "Labels": image.labels })).collect()))
}

async fn remove_image(State(world): State<World>, Path(path): Path<ById>) -> Result<Json<Value>, Refusal> {
    world.remove_image(&path.id).await?;
    Ok(Json(json!([{ "Deleted": path.id }])))
}

async fn list_networks(State(world): State<World>, Query(query): Pairs) -> Result<Json<Value>, Refusal> {
    let filters = filters(&query)?;
    let state = world.state();
    let found = state.networks.values().filter(|network| filters.match_all(&network.labels));
    Ok(Json(found.map(|net| json!({ "Id": net.id, "Name": net.name, "Labels": net.labels })).collect()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NewNetwork {
    name: String,
    #[serde(default)]
    labels: Option<Labels>,
}

async fn create_network(
    State(world): State<World>,
    Json(body): Json<NewNetwork>,
) -> Result<impl IntoResponse, Refusal> {
    let id = world.create_network(body.name, body.labels.unwrap_or_default())?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id, "Warning": "" }))))
}

async fn remove_network(State(world): State<World>, Path(path): Path<ById>) -> Done {
    world.remove_network(&path.id)?;
    Ok(StatusCode::NO_CONTENT)
}
