//! A server for some seeds, and one seed's run on it.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use http::Method;
use sabha::{
    client_api,
    http::{
        accept,
        listen::{Address, Listener, ListenerSpec},
        shutdown::Shutdown,
        tracked::TrackedLayer,
    },
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    api::{Api, Device, Request, Transport},
    checks::{self, End},
    clients::{Scene, Writer, power_levels},
    delays::Delays,
    followers::Follower,
    harness::{Engine, TestServer, v3},
    plan::{Plan, RoomPlan, USERS, WITNESS},
    world::{Fault, World},
};

/// For one seed, a hundred times what it takes: a run that hangs says so.
const LIMIT: Duration = Duration::from_secs(60);

/// A server, its router, and a listener of our own on it, whose requests we can wait for.
pub struct Stage {
    // Ends, with its database, when this does.
    server: TestServer,
    router: Transport,
    socket: Transport,
    requests: Shutdown,
    delays: Arc<Delays>,
}

impl Stage {
    /// `None` where the engine is not installed.
    pub async fn start(engine: Engine) -> Option<Self> {
        let server = TestServer::builder().engine(engine).try_start().await?;
        let requests = Shutdown::new();
        let layer = TrackedLayer::new(requests.tasks().clone());
        let router = client_api::routes().into_router().with_state(server.app().clone()).layer(layer);
        let address = Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let listener = Listener::bind(&ListenerSpec { address, tls: None }).await.expect("a free port");
        let Address::Tcp(address) = listener.address().clone() else { unreachable!("it was TCP") };
        tokio::spawn(accept::serve(listener, router.clone(), requests.clone()));
        let delays = Arc::new(Delays::new());
        let socket = Transport::Socket { address, http: reqwest::Client::new() };
        Some(Self { server, router: Transport::Router(router), socket, requests, delays })
    }

    /// Stops the server in order.
    pub async fn stop(mut self) {
        self.requests.begin();
        self.server.stop().await;
    }

    /// Runs a seed; what went wrong.
    pub async fn run(&self, seed: u64) -> Vec<Fault> {
        let plan = Plan::new(seed);
        let world = World::new(plan.rooms.len());
        let transport = if plan.sockets { &self.socket } else { &self.router };
        let api = Api { transport: transport.clone(), world: Arc::clone(&world) };
        self.delays.reseed(seed);
        if tokio::time::timeout(LIMIT, self.play(&plan, api)).await.is_err() {
            world.fault("a run hangs", format!("it is not over after {LIMIT:?}"));
        }
        world.take_faults()
    }

    async fn play(&self, plan: &Plan, api: Api) {
        let world = Arc::clone(&api.world);
        let scene = Arc::new(scene(plan, api).await);
        let mut followers = JoinSet::new();
        for follower in &plan.followers {
            let device = scene.api.login(&scene.user_ids[follower.user]).await;
            let kind = follower.kind.clone();
            followers.spawn(Follower::new(&scene, follower.user, device, kind, follower.seed).run());
        }
        let mut writers = JoinSet::new();
        for (number, writer) in plan.writers.iter().enumerate() {
            let device = match number {
                0..USERS => scene.devices[writer.user].clone(),
                _ => scene.api.login(&scene.user_ids[writer.user]).await,
            };
            let name = format!("m{}w{number}", plan.seed);
            let scene = Arc::clone(&scene);
            writers.spawn(Writer { scene, user: writer.user, device, name }.run(writer.steps.clone()));
        }
        while let Some(ended) = writers.join_next().await {
            if let Err(error) = ended {
                world.fault("a writer panicked", error.to_string());
            }
        }
        // Requests whose client hung up go on to their end.
        self.requests.tasks().close();
        self.requests.tasks().wait().await;
        self.requests.tasks().reopen();
        world.writers_are_done();
        let mut rested = Vec::new();
        while let Some(ended) = followers.join_next().await {
            match ended {
                Ok(follower) => rested.push(follower),
                Err(error) => world.fault("a follower panicked", error.to_string()),
            }
        }
        let end = End::read(&scene).await;
        checks::run(&end, &rested).await;
    }
}

/// Makes the users and the rooms.
async fn scene(plan: &Plan, api: Api) -> Scene {
    let mut devices = Vec::new();
    for user in 0..USERS {
        devices.push(api.register(&plan.user_name(user)).await);
    }
    let user_ids: Vec<String> = devices.iter().map(|device| device.user_id.clone()).collect();
    let mut room_ids = Vec::new();
    for room in &plan.rooms {
        room_ids.push(create(&api, room, &devices, &user_ids).await);
    }
    let creator_is_above = plan.rooms.iter().map(is_creator_above).collect();
    let world = Arc::clone(&api.world);
    Scene { world, api, room_ids, creator_is_above, user_ids, devices }
}

/// From version 12 on, who makes a room needs no power level, and must not have one.
fn is_creator_above(room: &RoomPlan) -> bool {
    room.version == "12"
}

async fn create(api: &Api, room: &RoomPlan, devices: &[Device], user_ids: &[String]) -> String {
    let visibility = json!({
        "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": room.visibility },
    });
    let body = json!({
        "preset": if room.public { "public_chat" } else { "private_chat" },
        "room_version": room.version,
        "initial_state": [visibility],
        "power_level_content_override": power_levels(user_ids, is_creator_above(room), 40),
    });
    let answer = api.need(&devices[WITNESS].token, &Request::post(v3(["createRoom"]), body)).await;
    let room_id = answer["room_id"].as_str().unwrap_or_default().to_owned();
    for user in &room.members {
        if !room.public {
            let body = json!({ "user_id": user_ids[*user] });
            api.need(&devices[WITNESS].token, &Request::post(v3(["rooms", &room_id, "invite"]), body)).await;
        }
        let join = Request { method: Method::POST, path: v3(["join", &room_id]), body: Some(json!({ "reason": "setup" })) };
        api.need(&devices[*user].token, &join).await;
    }
    room_id
}
