//! Auth chains against a model that follows each edge.

use proptest::{prelude::*, sample::Index};

use super::*;

/// A graph of auth events: each event with its auth events, which have smaller numbers.
fn graph(auth: &[Vec<i64>]) -> Graph {
    let mut graph = Graph::default();
    for (auth, nid) in auth.iter().zip(0..) {
        let auth: Box<[_]> = auth.iter().copied().map(EventNid).collect();
        let nodes: Vec<Arc<AuthNode>> = auth.iter().map(|nid| Arc::clone(&graph.auth_nodes[nid])).collect();
        let auth_depth = auth_depth(nodes.iter().map(|node| &**node));
        let nid = EventNid(nid);
        graph.auth_nodes.insert(nid, Arc::new(AuthNode { nid, auth, auth_depth, flags: Flags::NONE, key: None }));
    }
    graph
}

fn chain(graph: &Graph, of: &[i64], most: usize) -> Result<Vec<i64>, ChainError<NotStored>> {
    let of: Vec<_> = of.iter().copied().map(EventNid).collect();
    Ok(ready(auth_chain(graph, &of, most))?.into_iter().map(|nid| nid.0).collect())
}

fn model(auth: &[Vec<i64>], of: &[i64]) -> BTreeSet<i64> {
    let of_one = |nid: &i64| {
        let auth_events = &auth[usize::try_from(*nid).unwrap()];
        let mut found = model(auth, auth_events);
        found.extend(auth_events);
        found
    };
    of.iter().flat_map(of_one).collect()
}

#[test]
fn the_chain_of_an_event_is_without_the_event() {
    // The create event, a join, power levels, join rules, and a message.
    let graph = graph(&[vec![], vec![0], vec![0, 1], vec![0, 1, 2], vec![0, 1, 2]]);
    for (of, expected) in [
        (&[][..], &[][..]),
        (&[0], &[]),
        (&[1], &[0]),
        (&[4], &[0, 1, 2]),
        (&[4, 4], &[0, 1, 2]),
        // Each event rests on nothing of the other.
        (&[3, 4], &[0, 1, 2]),
        // The second rests on the first.
        (&[2, 4], &[0, 1, 2]),
    ] {
        assert_eq!(chain(&graph, of, 100).unwrap(), expected, "{of:?}");
    }
}

#[test]
fn a_chain_that_is_too_long_is_an_error() {
    let graph = graph(&(0..5_000).map(|nid| if nid == 0 { vec![] } else { vec![nid - 1] }).collect::<Vec<_>>());
    assert_eq!(chain(&graph, &[4_999], 4_999).unwrap().len(), 4_999);
    graph.reads.store(0, Ordering::Relaxed);
    let result = chain(&graph, &[4_999], 1_000);
    assert!(matches!(result, Err(ChainError::TooLong { most: 1_000 })), "{result:?}");
    assert!(graph.reads.load(Ordering::Relaxed) <= 1_001, "the walk ends at once");
}

#[test]
fn a_chain_with_a_hole_is_an_error() {
    let mut graph = graph(&[vec![], vec![0], vec![1]]);
    graph.auth_nodes.remove(&EventNid(0));
    let result = chain(&graph, &[2], 100);
    assert!(matches!(result, Err(ChainError::Read(NotStored(EventNid(0))))), "{result:?}");
}

#[test]
fn stored_events_that_name_each_other_end_the_walk() {
    let mut graph = graph(&[vec![], vec![0], vec![1]]);
    let damaged = AuthNode { auth: [EventNid(2)].into(), ..(*graph.auth_nodes[&EventNid(0)]).clone() };
    graph.auth_nodes.insert(EventNid(0), Arc::new(damaged));
    assert_eq!(chain(&graph, &[2], 100).unwrap(), [0, 1, 2]);
}

proptest! {
    #[test]
    fn a_chain_is_the_closure_and_in_the_order_of_auth_events(
        drawn in proptest::collection::vec(proptest::collection::vec(any::<Index>(), 0..4), 1..40),
        of in proptest::collection::vec(any::<Index>(), 0..4),
    ) {
        let auth: Vec<Vec<i64>> = drawn.iter().zip(0..).map(|(auth, nid)| {
            let smaller = auth.iter().filter(|_| nid > 0).map(|index| index.index(nid)).collect::<BTreeSet<_>>();
            smaller.into_iter().map(|nid| i64::try_from(nid).unwrap()).collect()
        }).collect();
        let of: Vec<i64> = of.iter().map(|index| i64::try_from(index.index(auth.len())).unwrap()).collect();
        let graph = graph(&auth);
        let found = chain(&graph, &of, 1_000).unwrap();
        prop_assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), model(&auth, &of));
        for (index, nid) in found.iter().enumerate() {
            let named = &auth[usize::try_from(*nid).unwrap()];
            prop_assert!(named.iter().all(|auth| found[..index].contains(auth)));
        }
        // The bound is exact.
        prop_assert!(chain(&graph, &of, found.len()).is_ok());
        if !found.is_empty() {
            prop_assert!(chain(&graph, &of, found.len() - 1).is_err());
        }
    }
}
