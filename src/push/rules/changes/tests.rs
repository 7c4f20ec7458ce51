//! The order of rules and the refused changes, as tables.

use ruma::{
    push::{Action, NewConditionalPushRule, NewPatternedPushRule, NewPushRule, RuleKind, Ruleset},
    user_id,
};

use super::*;

fn content_rule(id: &str) -> NewPushRule {
    NewPushRule::Content(NewPatternedPushRule::new(id.to_owned(), "word".to_owned(), vec![Action::Notify]))
}

fn override_rule(id: &str) -> NewPushRule {
    NewPushRule::Override(NewConditionalPushRule::new(id.to_owned(), vec![], vec![]))
}

/// The rules `c`, `b` and `a`, in this order, as each was added as the first of its kind.
fn three() -> Ruleset {
    let mut ruleset = defaults::server_default(user_id!("@alice:example.org"));
    for id in ["a", "b", "c"] {
        put(&mut ruleset, content_rule(id), None, None).unwrap();
    }
    ruleset
}

#[test]
fn a_rule_goes_where_after_and_before_say() {
    let check = |id: &str, after: Option<&str>, before: Option<&str>, expected: &[&str]| {
        let mut ruleset = three();
        put(&mut ruleset, content_rule(id), after, before).unwrap();
        let mut order: Vec<_> = ruleset.content.iter().map(|rule| rule.rule_id.as_str()).collect();
        assert_eq!(order.pop(), Some(".m.rule.contains_user_name"), "the server's rules are tried last");
        assert_eq!(order, expected, "{id} after {after:?} before {before:?}");
    };
    check("d", None, None, &["d", "c", "b", "a"]);
    check("d", Some("c"), None, &["c", "d", "b", "a"]);
    check("d", Some("a"), None, &["c", "b", "a", "d"]);
    check("d", None, Some("b"), &["c", "d", "b", "a"]);
    check("d", Some("c"), Some("b"), &["c", "d", "b", "a"]);
    // With both neighbours, the rule is placed right before `before`.
    check("d", Some("c"), Some("a"), &["c", "b", "d", "a"]);
    // An existing rule stays, or moves down, up, and to the end.
    check("b", None, None, &["c", "b", "a"]);
    check("c", Some("b"), None, &["b", "c", "a"]);
    check("c", Some("a"), None, &["b", "a", "c"]);
    check("c", None, Some("a"), &["b", "c", "a"]);
    check("a", None, Some("c"), &["a", "c", "b"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let check = |rule: NewPushRule, after: Option<&str>, before: Option<&str>, expected: &str| {
        let error = put(&mut three(), rule, after, before).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} is not about {expected}");
    };
    check(content_rule("d"), Some("nobody"), None, "not found: nobody");
    check(content_rule("d"), None, Some("nobody"), "not found: nobody");
    check(content_rule("a"), Some("a"), None, "not found: a");
    check(content_rule("d"), Some("a"), Some("c"), "cannot be before and after");
    check(content_rule(".m.rule.mine"), None, None, "rules of the server");
    check(content_rule("a/b"), None, None, "slashes");
    check(content_rule(""), None, None, "1 to 255");
    check(content_rule(&"x".repeat(256)), None, None, "1 to 255");
    check(override_rule("d"), Some(".m.rule.suppress_notices"), None, "next to a rule of the server");
    let long = NewPatternedPushRule::new("d".to_owned(), "x".repeat(513), vec![]);
    check(NewPushRule::Content(long), None, None, "512 bytes");
}

#[test]
fn no_more_than_so_many_rules_can_be_added() {
    let mut ruleset = defaults::server_default(user_id!("@alice:example.org"));
    for number in 0..MAX_RULES {
        put(&mut ruleset, content_rule(&number.to_string()), None, None).unwrap();
    }
    assert!(matches!(put(&mut ruleset, content_rule("one more"), None, None), Err(RuleError::TooMany)));
    put(&mut ruleset, content_rule("7"), None, None).expect("a rule that exists can be replaced");
}

#[test]
fn all_rules_together_must_not_be_too_long() {
    let mut ruleset = defaults::server_default(user_id!("@alice:example.org"));
    let long = |id: &str, bytes: usize| {
        NewPushRule::Content(NewPatternedPushRule::new(id.to_owned(), "?".repeat(bytes), vec![Action::Notify]))
    };
    let refused = (0..MAX_RULES).find(|number| match put(&mut ruleset, long(&number.to_string(), 512), None, None) {
        Ok(()) => false,
        Err(error) => matches!(error, RuleError::TooLong),
    });
    assert_eq!(refused, Some(60), "32 KiB by 512 and 32");
    put(&mut ruleset, long("7", 400), None, None).expect("it takes the place of a longer one");
    put(&mut ruleset, long("other", 128), None, None).expect("there is room again");
    assert!(matches!(put(&mut ruleset, long("7", 512), None, None), Err(RuleError::TooLong)));
}

#[test]
fn the_master_rule_stays_first() {
    let mut ruleset = three();
    put(&mut ruleset, override_rule("mine"), None, None).unwrap();
    let order: Vec<_> = ruleset.override_.iter().take(2).map(|rule| rule.rule_id.as_str()).collect();
    assert_eq!(order, [".m.rule.master", "mine"]);
}

#[test]
fn rules_of_the_server_can_be_changed_but_not_removed() {
    let mut ruleset = three();
    let master = ".m.rule.master";
    assert!(matches!(remove(&mut ruleset, RuleKind::Override, master), Err(RuleError::ServerDefault)));
    assert!(matches!(remove(&mut ruleset, RuleKind::Override, "nobody"), Err(RuleError::NotFound)));
    set_enabled(&mut ruleset, RuleKind::Override, master, true).unwrap();
    set_actions(&mut ruleset, RuleKind::Override, master, vec![Action::Notify]).unwrap();
    let rule = ruleset.get(RuleKind::Override, master).unwrap();
    assert!(rule.enabled());
    assert_eq!(rule.actions().len(), 1);
}

#[test]
fn what_was_stored_is_read_back_with_the_rules_of_the_server() {
    let alice = user_id!("@alice:example.org");
    let mut ruleset = three();
    set_enabled(&mut ruleset, RuleKind::Content, "b", false).unwrap();
    set_enabled(&mut ruleset, RuleKind::Override, ".m.rule.master", true).unwrap();
    // Replacing a rule does not enable it again, also when it moves.
    put(&mut ruleset, content_rule("b"), Some("a"), None).unwrap();
    let stored = content(&ruleset).unwrap();
    let read = merged(alice, Some(&stored)).unwrap();
    assert_eq!(content(&read).unwrap().get(), stored.get());
    assert!(!read.get(RuleKind::Content, "b").unwrap().enabled());
    assert!(read.get(RuleKind::Override, ".m.rule.master").unwrap().enabled());
}

#[test]
fn all_five_kinds_are_shown_also_when_empty() {
    let content = content(&defaults::server_default(user_id!("@alice:example.org"))).unwrap();
    let content: Value = serde_json::from_str(content.get()).unwrap();
    for kind in KINDS {
        assert!(content["global"][kind].is_array(), "{kind}");
    }
}
