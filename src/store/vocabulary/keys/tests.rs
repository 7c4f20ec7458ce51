//! Pairs of words with characters that a database may refuse or take for another.

use std::collections::HashSet;

use super::*;
use crate::store::tests::NewDatabase;

#[tokio::test]
async fn pairs_of_any_words_are_stored_and_found_again() {
    // The longest words of events: 255 characters. PostgreSQL refuses pairs that do not fit into its index.
    let longest = ["\0", "\u{10FFFE}", "\u{1f600}"].map(|character| character.repeat(255));
    let mut words = vec!["", "0", "1", "a", "A", "a ", "é", "e\u{301}", "\0", "\0\0", "a\0b"];
    words.extend(["\u{10FFFE}", "\u{10FFFE}0", "\u{10FFFE}1", "\u{10FFFE}\0", "\u{FFFF}", "\u{FEFF}"]);
    words.extend(longest.iter().map(String::as_str));
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let (mut write, mut made) = (Write::default(), Vec::new());
        for event_type in &words {
            for state_key in &words {
                let key = db.state_key(event_type, state_key).await.unwrap();
                key.write_if_new(&mut write);
                made.push(key);
            }
        }
        db.committer().write(write).await.unwrap();
        let nids: HashSet<_> = made.iter().map(|key| key.nid).collect();
        assert_eq!(nids.len(), words.len() * words.len());

        for key in &made {
            let found = db.read_state_key(&key.event_type, &key.state_key).await.unwrap();
            assert_eq!(found, Some(key.nid), "{key:?}");
        }
        for event_type in &words {
            let of_type = made.iter().filter(|key| *key.event_type == **event_type);
            let expected: HashMap<_, _> = of_type.map(|key| (key.state_key.to_string(), key.nid)).collect();
            assert_eq!(db.read_state_keys(event_type, &words).await.unwrap(), expected, "{event_type:?}");
        }
        assert_eq!(db.read_state_key("a\0", "a").await.unwrap(), None);
        assert!(db.find_state_key("a\0", "a").await.unwrap().is_none());
    }
}
