//! Jumps: whole states that replace others, against the same model.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Change { key: i64, event: Option<i64> },
    Jump(BTreeMap<i64, i64>),
}

prop_compose! {
    /// A history like the others, at whose positions the whole state is sometimes replaced.
    fn any_history_with_jumps()(
        steps in prop::collection::vec(
            (1..4_i64, prop_oneof![
                5 => (0..7_i64, prop::option::weighted(0.8, 0..6_i64))
                    .prop_map(|(key, event)| Step::Change { key, event }),
                1 => prop::collection::btree_map(0..7_i64, 0..6_i64, 0..7).prop_map(Step::Jump),
            ]),
            0..40,
        ),
    ) -> History {
        let mut history = History::new();
        let event = |key: i64, event: i64| EventNid(key * 10 + event);
        for (gap, step) in steps {
            let pos = Position(history.log.latest().0 + gap);
            match step {
                Step::Change { key, event: to } => history.set(KeyNid(key), pos, to.map(|to| event(key, to))),
                Step::Jump(to) => {
                    history.jump(pos, &to.iter().map(|(key, to)| (KeyNid(*key), event(*key, *to))).collect());
                }
            }
        }
        history
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rows_merged_with_those_of_jumps_replay_to_the_state_of_every_position(history in any_history_with_jumps()) {
        for pos in history.positions() {
            let of_jumps = history.jumps.iter().filter(|jump| jump.pos <= pos).flat_map(Jump::rows);
            let rows = merge(history.rows_in(START, pos).collect(), of_jumps);
            let replayed = StateLog::new(secret(), START).replay(rows).expect("the rows are whole");
            assert_is(&replayed, &history.state_at(pos));
        }
    }

    #[test]
    fn the_rows_of_one_key_are_its_whole_history(history in any_history_with_jumps()) {
        let all = merge(history.rows.clone(), history.jumps.iter().flat_map(Jump::rows));
        for key in (0..8).map(KeyNid) {
            let of_key = history.rows.iter().copied().filter(|row| row.key == key).collect();
            let rows = merge(of_key, history.jumps.iter().filter_map(|jump| jump.row(key)));
            prop_assert!(rows.iter().eq(all.iter().filter(|row| row.key == key)));
            for pos in history.positions() {
                let found = rows.iter().rev().find(|row| row.pos <= pos).and_then(|row| row.event_nid);
                prop_assert_eq!(found, history.state_at(pos).get(&key).map(|entry| entry.event_nid));
            }
        }
    }

    #[test]
    fn a_log_knows_the_states_since_its_last_jump_and_no_wrong_ones_before(history in any_history_with_jumps()) {
        let last = history.jumps.last().map_or(START, |jump| jump.pos);
        assert_is(&history.log, &history.state_at(history.log.latest()));
        prop_assert_eq!(history.log.tail_from(), last);
        for pos in history.positions() {
            let state = history.state_at(pos);
            let in_memory = last <= pos;
            prop_assert_eq!(history.log.state_at(pos), in_memory.then(|| sorted(&state)));
            prop_assert_eq!(history.log.hash_at(pos), in_memory.then(|| StateHash::of(&secret(), &sorted(&state))));
            for key in (0..8).map(KeyNid) {
                let found = history.log.get_at(key, pos);
                let unknown = !in_memory && found == Lookup::NotInMemory;
                prop_assert!(unknown || found == Lookup::from(state.get(&key).copied()), "{:?} at {:?}", key, pos);
            }
        }
    }

    #[test]
    fn a_log_that_is_loaded_from_a_jump_is_the_log_that_jumped(history in any_history_with_jumps()) {
        for jump in &history.jumps {
            let hash = StateHash::of(&secret(), &jump.after);
            let stored = Checkpoint { pos: jump.pos, hash, entries: jump.after.clone() };
            let upto = history.jumps.iter().map(|other| other.pos).find(|other| jump.pos < *other);
            let upto = upto.map_or(history.log.latest(), |next| Position(next.0 - 1));
            let rows = history.rows_in(jump.pos, upto);
            let loaded = StateLog::from_checkpoint(secret(), stored, rows).expect("the rows are whole");
            assert_is(&loaded, &history.state_at(upto));
        }
    }
}

#[test]
fn keys_whose_event_stays_keep_their_position_over_a_jump() {
    let mut history = History::new();
    let event = |event| Some(EventNid(event));
    history.set(KeyNid(5), Position(11), event(50));
    history.set(KeyNid(6), Position(12), event(60));
    history.set(KeyNid(7), Position(13), event(70));
    let to = [(5, 50), (6, 61), (8, 80)].map(|(key, event)| (KeyNid(key), EventNid(event)));
    history.jump(Position(20), &to.into());

    let pos = |key| history.log.get(KeyNid(key)).map(|entry| entry.pos.0);
    assert_eq!([5, 6, 7, 8].map(pos), [Some(11), Some(20), None, Some(20)]);
    let rows = history.jumps[0].rows().map(|row| (row.key.0, row.pos.0, row.prev_event_nid, row.event_nid));
    assert!(rows.eq([(6, 20, event(60), event(61)), (7, 20, event(70), None), (8, 20, None, event(80))]));
    assert_eq!(history.jumps[0].row(KeyNid(5)), None);
    // The log goes on after its jump.
    history.set(KeyNid(7), Position(21), event(71));
    assert_eq!(history.log.state_at(Position(20)), Some(history.jumps[0].after.clone()));
}

#[test]
fn a_jump_of_fifty_thousand_members_counts_them() {
    let mut history = joins(2);
    let events: BTreeMap<_, _> = (0..50_000).map(|key| (KeyNid(key), EventNid(key * 5))).collect();
    let entries =
        events.iter().map(|(key, event)| (*key, Held { event_nid: *event, membership: Some(Membership::Join) }));
    history.log = history.log.jump(Position(100), entries.collect());
    assert_eq!((history.log.joined(), history.log.len()), (50_000, 50_000));
    assert_eq!(history.log.hash(), StateHash::of(&secret(), history.log.entries()));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "a jump must be newer than the log")]
fn a_jump_into_the_past_is_caught() {
    let log = joins(3).log;
    drop(log.jump(log.latest(), Vec::new()));
}
