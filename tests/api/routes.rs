//! The list of what is served.

use crate::harness::routes::assert_as_committed;

#[test]
fn the_routes_are_those_in_git() {
    let routes = sabha::client_api::routes().merge(sabha::federation_api::routes());
    let served: Vec<_> = routes.list().iter().map(|(method, path)| (method.clone(), (*path).to_owned())).collect();
    assert_as_committed(&served);
}
