//! Events of any graph in any order: the forward extremities are those of a model that looks at the whole graph.

use proptest::{prelude::*, sample::Index};

use super::*;

/// An event of a drawn graph. Its number is its place in the list, and it follows on smaller ones.
#[derive(Clone, Debug)]
struct Drawn {
    prev: Vec<Number>,
    kind: Kind,
}

/// Events that are named and never come.
const NEVER: Number = 1_000;

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Line),
        1 => Just(Kind::History),
        2 => Just(Kind::SoftFailed),
        2 => Just(Kind::Rejected),
    ]
}

/// A graph and an order in which its events come, some of them twice: first as an outlier. The create event comes first.
fn world() -> impl Strategy<Value = (Vec<Drawn>, Vec<(Number, Kind)>)> {
    let event = (proptest::collection::vec(any::<Index>(), 1..4), kind(), any::<bool>(), 0_u8..8);
    proptest::collection::vec(event, 1..24)
        .prop_flat_map(|events| {
            let mut drawn = vec![Drawn { prev: Vec::new(), kind: Kind::Line }];
            let mut comings = Vec::new();
            for (prev, kind, is_outlier_first, names_missing) in events {
                let number = drawn.len();
                let mut prev: BTreeSet<_> = prev.iter().map(|index| index.index(number)).collect();
                if names_missing == 0 {
                    prev.insert(NEVER + number);
                }
                if is_outlier_first {
                    comings.push(number);
                }
                comings.push(number);
                drawn.push(Drawn { prev: prev.into_iter().collect(), kind });
            }
            (Just(drawn), Just(comings).prop_shuffle())
        })
        .prop_map(|(drawn, order)| {
            let mut left: BTreeMap<Number, usize> = BTreeMap::new();
            for number in &order {
                *left.entry(*number).or_default() += 1;
            }
            let mut comings = vec![(0, Kind::Line)];
            for number in order {
                let count = left.get_mut(&number).expect("counted above");
                *count -= 1;
                comings.push((number, if *count > 0 { Kind::Outlier } else { drawn[number].kind }));
            }
            (drawn, comings)
        })
}

/// The accepted events of the line that no accepted event reaches, directly or through failed ones.
fn model(drawn: &[Drawn], came: &BTreeMap<Number, Kind>) -> BTreeSet<OwnedEventId> {
    let mut covered: BTreeSet<Number> = BTreeSet::new();
    for (number, _) in came.iter().filter(|(_, kind)| kind.is_accepted()) {
        let mut next = drawn[*number].prev.clone();
        while let Some(prev) = next.pop() {
            covered.insert(prev);
            if matches!(came.get(&prev), Some(Kind::SoftFailed | Kind::Rejected)) {
                next.extend(&drawn[prev].prev);
            }
        }
    }
    let line = came.iter().filter(|(number, kind)| **kind == Kind::Line && !covered.contains(number));
    line.map(|(number, _)| id(*number)).collect()
}

proptest! {
    #[test]
    fn extremities_do_not_depend_on_the_order_in_which_events_come((drawn, comings) in world()) {
        let mut graph = Graph::default();
        let mut came: BTreeMap<Number, Kind> = BTreeMap::new();
        for (number, kind) in comings {
            let mut then = came.clone();
            then.insert(number, kind);
            let expected = model(&drawn, &then);
            let taken = graph.take(number, &drawn[number].prev, kind);
            prop_assert_eq!(taken.is_err(), expected.is_empty(), "{} as {:?}", number, kind);
            if taken.is_ok() {
                came = then;
            }
            prop_assert_eq!(graph.extremities(), model(&drawn, &came), "{} as {:?}", number, kind);
        }
    }
}
