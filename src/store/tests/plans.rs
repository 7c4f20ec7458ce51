//! The plans of both engines for each query text: none may read a whole table, except those named here with a reason.
//!
//! A missing index is not noticed with ten rows, and stops the server with a million.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::{Empty, STATEMENTS};

/// Query texts that may read a whole table, and why.
const MAY_SCAN: &[(&str, &str, &str)] = &[
    ("accounts.rs", "ANY_ACCOUNT", "asked once at the start, and ends at the first account with a password"),
    ("accounts.rs", "ANY_ADMIN", "asked only with a right setup secret, of which there is one in a server's life"),
    ("accounts.rs", "DELETE_SETUP_SECRETS", "the table has one row"),
    ("aliases.rs", "PUBLISHED_ROOMS", "the whole directory is what is asked for"),
    ("devices.rs", "LAST_SEEN_USERS", "asked once after a start, for those who were seen last of all"),
    ("jobs.rs", "LIST_JOBS", "the whole table is what is asked for, from the front and with a limit"),
    ("leftovers.rs", "LEFTOVERS", "the whole table is what is asked for, from the front and with a limit"),
    ("log/cursors.rs", "LIST_CURSORS", "the table has a row for each consumer, and this is done at the start"),
    ("log/feed.rs", "ENTRIES", "what is read as a whole are the sizes of the entries of one page"),
    ("own_keys.rs", "OWN_KEYS", "the table has a row for each change of our key, and all are asked for"),
    ("relations.rs", "RELATED_OVER_OTHERS", "what is read as a whole are the relations found one step before"),
    ("relations.rs", "RELATED_PARENTS_32", "what is read as a whole are the newest relations of one event"),
    ("terms.rs", "FORGET_TERMS", "the table has a thousand rows, and this is done when a term begins"),
    ("terms.rs", "LIST_TERMS", "the table has a thousand rows, and this is done when a term begins"),
    ("terms.rs", "NEXT_TERM", "the table has a thousand rows, and this is done when a term has ended"),
    ("timelines.rs", "TIMELINE_BACK", "what is read as a whole is one page"),
    ("timelines.rs", "TIMELINE_FORWARD", "what is read as a whole is one page"),
];

/// The steps of SQLite's plan.
async fn sqlite_steps(conn: &mut SqliteConnection, text: &'static str) -> Vec<String> {
    let steps = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")));
    let steps = steps.fetch_all(conn).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    steps.iter().map(|step| step.get::<String, _>("detail")).collect()
}

/// The steps of a plan that read a whole table or a whole index.
async fn scans(empty: &mut Empty, text: &'static str) -> Vec<String> {
    let steps = steps(empty, text).await;
    if empty.is_postgres() {
        return postgres_scans(&steps);
    }
    steps.into_iter().filter(|step| is_sqlite_scan(step)).collect()
}

/// The steps of the engine's plan.
async fn steps(empty: &mut Empty, text: &'static str) -> Vec<String> {
    match empty {
        Empty::Sqlite(conn, _) => sqlite_steps(conn, text).await,
        Empty::Postgres(conn, _) => {
            let values = (1..).take_while(|number| text.contains(&format!("${number}"))).map(|_| "NULL");
            let values = values.collect::<Vec<_>>().join(", ");
            let values = if values.is_empty() { values } else { format!("({values})") };
            // The plan for any values: with these, PostgreSQL would see that nothing can be found.
            let script = format!("PREPARE planned AS {text}");
            sqlx::raw_sql(AssertSqlSafe(script))
                .execute(&mut *conn)
                .await
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            let steps = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN EXECUTE planned{values}")));
            let steps = steps.fetch_all(&mut *conn).await.unwrap_or_else(|error| panic!("{text}: {error}"));
            let steps: Vec<String> = steps.iter().map(|step| step.get::<String, _>(0)).collect();
            sqlx::raw_sql("DEALLOCATE planned").execute(&mut *conn).await.expect("it was prepared");
            steps
        }
    }
}

/// A step such as `SCAN event` or `SCAN event USING INDEX …`; not one through the rows of a `VALUES` or of a subquery.
fn is_sqlite_scan(step: &str) -> bool {
    let Some(what) = step.strip_prefix("SCAN ") else {
        return false;
    };
    !(what.starts_with("CONSTANT ROW")
        || what.contains("CONSTANT ROW")
        || what.starts_with('(')
        || what.contains("VALUES CLAUSE"))
}

/// Steps that read a table, or an index of it, without a condition on the index.
fn postgres_scans(steps: &[String]) -> Vec<String> {
    let mut scans = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        if step.contains("Seq Scan on") {
            scans.push(step.trim().to_owned());
        }
        let reads_index = ["Index Scan using", "Index Only Scan using", "Bitmap Index Scan on"];
        if reads_index.iter().any(|kind| step.contains(kind)) {
            let indent = |step: &str| step.len() - step.trim_start().len();
            let own = steps[index + 1..].iter().take_while(|next| indent(next) > indent(step) && !next.contains("->"));
            if !own.into_iter().any(|next| next.contains("Index Cond:")) {
                scans.push(step.trim().to_owned());
            }
        }
    }
    scans
}

/// Makes PostgreSQL plan as for large tables and for any values. For empty tables it would join whole indexes.
async fn prefer_indexes(empty: &mut Empty) {
    if let Empty::Postgres(conn, _) = empty {
        let settings = "SET enable_seqscan = off; SET enable_mergejoin = off; SET enable_hashjoin = off; \
            SET plan_cache_mode = force_generic_plan";
        sqlx::raw_sql(settings).execute(conn).await.expect("settings of PostgreSQL");
    }
}

#[tokio::test]
async fn no_statement_reads_a_whole_table() {
    let mut found = String::new();
    let mut needed = BTreeSet::new();
    for mut empty in Empty::both().await {
        let engine = if empty.is_postgres() { "PostgreSQL" } else { "SQLite" };
        prefer_indexes(&mut empty).await;
        for (file, statements) in STATEMENTS {
            for (name, sql) in *statements {
                let scans = scans(&mut empty, sql.text()).await;
                if scans.is_empty() {
                    continue;
                }
                if MAY_SCAN.iter().any(|(in_file, named, _)| (in_file, named) == (file, name)) {
                    needed.insert((*file, *name));
                } else {
                    found.push_str(&format!("{engine}, {file} {name}: {}\n", scans.join("; ")));
                }
            }
        }
    }
    assert!(found.is_empty(), "these read a whole table:\n{found}");
    let unused: Vec<_> = MAY_SCAN.iter().filter(|(file, name, _)| !needed.contains(&(*file, *name))).collect();
    assert!(unused.is_empty(), "these need no exception any more: {unused:?}");
}

/// A search for all relations of a room, again for each relation that is followed, costs the square of them.
#[tokio::test]
async fn relations_are_followed_by_their_whole_key() {
    let mut empty = Empty::sqlite().await;
    let Empty::Sqlite(conn, _) = &mut empty else { panic!("it is SQLite") };
    let (_, statements) = STATEMENTS.iter().find(|(file, _)| *file == "relations.rs").expect("the file is known");
    let mut searches = 0;
    for (name, sql) in *statements {
        for step in sqlite_steps(conn, sql.text()).await {
            if step.starts_with("SEARCH r ") {
                searches += 1;
                let whole = step.contains("(room_nid=? AND parent_id=?") || step.contains("(annotation=?");
                assert!(whole, "{name}: {step}");
            }
            assert!(!step.contains("RECURSIVE"), "{name}: a recursion queues all before its first row is read");
        }
    }
    assert!(
        searches >= 8,
        "{searches} searches: direct relations both ways, three steps of others, filters, annotations"
    );
}

/// A room has few events without a place among millions with one.
#[tokio::test]
async fn the_events_of_a_room_that_have_no_place_are_found_by_their_index() {
    for mut empty in Empty::both().await {
        prefer_indexes(&mut empty).await;
        let steps = steps(&mut empty, "SELECT event_nid FROM event WHERE room_nid = $1 AND pos IS NULL").await;
        assert!(steps.iter().any(|step| step.contains("event_outlier")), "{steps:?}");
    }
}

/// The place has two columns. A search by the first alone would read all history of a gap for each page of it.
#[tokio::test]
async fn pages_of_a_timeline_are_found_by_the_whole_place() {
    let mut empty = Empty::sqlite().await;
    let Empty::Sqlite(conn, _) = &mut empty else { panic!("it is SQLite") };
    let paged = [("timelines.rs", "TIMELINE_BACK"), ("timelines.rs", "TIMELINE_FORWARD")];
    for (file, name) in paged.into_iter().chain([("relations.rs", "RELATED_BACK"), ("relations.rs", "RELATED_FORWARD")])
    {
        let of_file = STATEMENTS.iter().find(|(known, _)| *known == file).map(|(_, statements)| *statements);
        let sql = of_file.into_iter().flatten().find(|(known, _)| *known == name).map(|(_, sql)| sql);
        let steps = sqlite_steps(conn, sql.expect("it is in this file").text()).await;
        let by_place = |step: &String| step.contains("(pos,sub)>(?,?) AND (pos,sub)<(?,?)");
        assert!(steps.iter().any(by_place), "{name}: {steps:?}");
        assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{name} sorts: {steps:?}");
    }
}

#[test]
fn steps_of_plans_are_told_apart() {
    let check = |step: &str, expected: bool| assert_eq!(is_sqlite_scan(step), expected, "{step}");
    check("SCAN event", true);
    check("SCAN event USING COVERING INDEX x", true);
    check("SEARCH event USING INDEX x (a=?)", false);
    check("SCAN 16 CONSTANT ROWS", false);
    check("SCAN 16-ROW VALUES CLAUSE", false);
    let steps = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(postgres_scans(&steps("Index Scan using a on t\n  Index Cond: (x = $1)\n  Filter: y")).len(), 0);
    assert_eq!(postgres_scans(&steps("Limit\n  ->  Index Scan using a on t\n        Filter: y")).len(), 1);
    assert_eq!(postgres_scans(&steps("Seq Scan on t")).len(), 1);
}
