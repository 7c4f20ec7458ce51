//! Labels: Complement stores data in them on its containers, images and networks, and finds these by them.

use std::collections::BTreeMap;

use serde_json::Value;

pub type Labels = BTreeMap<String, String>;

/// The `filters` of a list request: `{"label": {"key=value": true}}`, or a list of such texts.
#[derive(Debug, Default)]
pub struct Filters(Vec<String>);

impl Filters {
    /// Parses filters. Without any, everything matches. `None` for invalid JSON.
    pub fn parse(filters: Option<&str>) -> Option<Self> {
        let Some(filters) = filters.filter(|filters| !filters.is_empty()) else {
            return Some(Self::default());
        };
        let filters: Value = serde_json::from_str(filters).ok()?;
        Some(Self(match &filters["label"] {
            Value::Object(labels) => labels.keys().cloned().collect(),
            Value::Array(labels) => labels.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }))
    }

    pub fn match_all(&self, labels: &Labels) -> bool {
        self.0.iter().all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|has| has == value),
            None => labels.contains_key(wanted),
        })
    }
}

/// Parses one `LABEL "key"="value"` of a commit, the only kind of change that is supported.
pub fn parse_change(change: &str) -> Option<(String, String)> {
    let (key, value) = change.strip_prefix("LABEL ")?.trim().split_once("\"=\"")?;
    Some((key.strip_prefix('"')?.to_owned(), value.strip_suffix('"')?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_ask_for_keys_and_for_values() {
        let labels = Labels::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x=y".to_owned())]);
        let check = |filters, expected| {
            assert_eq!(Filters::parse(Some(filters)).unwrap().match_all(&labels), expected, "{filters}");
        };
        check("", true);
        check("{}", true);
        check(r#"{"label":{"a":true}}"#, true);
        check(r#"{"label":{"a=1":true,"b=x=y":true}}"#, true);
        check(r#"{"label":["a=1"]}"#, true);
        check(r#"{"label":{"a=2":true}}"#, false);
        check(r#"{"label":["c"]}"#, false);
        assert!(Filters::parse(Some("{")).is_none());
    }

    #[test]
    fn a_change_is_a_quoted_label() {
        let check = |change, expected: Option<(&str, &str)>| {
            assert_eq!(
                parse_change(change),
                expected.map(|(key, value)| (key.to_owned(), value.to_owned())),
                "{change}"
            );
        };
        check(r#"LABEL "access_token_@a:hs1"="t""#, Some(("access_token_@a:hs1", "t")));
        check(r#"LABEL "k"="id: x\nurl: 'a=b'\n""#, Some(("k", r"id: x\nurl: 'a=b'\n")));
        check(r#"LABEL "k"="""#, Some(("k", "")));
        check("CMD x", None);
        check("LABEL k=v", None);
    }
}
