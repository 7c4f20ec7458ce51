//! The list of served routes.

use sabha::config::Secret;

use crate::harness::{TestServer, routes::assert_as_committed};

#[test]
fn the_routes_are_those_in_git() {
    let served: Vec<_> = sabha::server::routes().into_iter().map(|(method, path)| (method, path.to_owned())).collect();
    assert_as_committed(&served);
}

/// Compares the list with a server that has everything switched on, because the list is built apart from the routers.
#[tokio::test]
async fn what_is_listed_is_served() {
    let server = TestServer::builder()
        .config(|config| {
            config.federation.enabled = true;
            config.registration.shared_secret = Secret::try_from("a secret of at least some length".to_owned()).ok();
        })
        .start()
        .await;
    let client = server.anonymous();
    for (method, path) in sabha::server::routes() {
        let answer = client.request(method.clone(), path, None).await;
        assert_ne!(answer.json["errcode"], "M_UNRECOGNIZED", "{method} {path}");
    }
}
