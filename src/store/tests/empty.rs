//! A new database of either engine with our schema, to which SQL is sent directly.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqlSafeStr as _, SqliteConnection};

use super::{migrate, postgres};
use crate::store::{Insert, Row, Value, committer, own_keys::OWN_KEY, pieces::Piece};

/// A connection to a new database of either engine, with our schema.
pub(super) enum Empty {
    Sqlite(SqliteConnection, #[expect(dead_code, reason = "dropped with the connection")] tempfile::TempDir),
    Postgres(PgConnection, #[expect(dead_code, reason = "dropped with the connection")] postgres::PostgresDatabase),
}

impl Empty {
    pub(super) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite:{}", dir.path().join("sabha.db").display());
        migrate(&url).await;
        Self::Sqlite(SqliteConnection::connect(&url).await.expect("it was made"), dir)
    }

    async fn postgres() -> Option<Self> {
        let database = postgres::PostgresDatabase::create().await?;
        migrate(&database.url).await;
        Some(Self::Postgres(PgConnection::connect(&database.url).await.expect("it runs"), database))
    }

    pub(super) async fn both() -> Vec<Self> {
        let mut both = vec![Self::sqlite().await];
        both.extend(Self::postgres().await);
        both
    }

    pub(super) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(..))
    }

    pub(super) async fn prepare(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(conn, _) => conn.prepare(text.into_sql_str()).await.map(drop),
            Self::Postgres(conn, _) => conn.prepare(text.into_sql_str()).await.map(drop),
        }
    }

    /// Prepares the texts that a commit in one call sends, with up to two rows of a table, of new keys and of others.
    pub(super) async fn prepare_one_call(&mut self, insert: &'static Insert) -> Result<(), sqlx::Error> {
        let row = || [Row { insert, values: vec![Value::Int(1); insert.columns.len()].into(), is_new: false }];
        let known = [Piece::of_any(insert, 1), Piece::of_any(insert, 2)];
        let of_one = [true, false].map(|is_new| Piece::of(insert, &row(), is_new));
        for piece in known.into_iter().chain(of_one) {
            match self {
                Self::Sqlite(conn, _) => {
                    // SQLite prepares one statement at a time. None of ours holds a semicolon.
                    for text in committer::sqlite_text(&[piece]).split("; ") {
                        conn.prepare(AssertSqlSafe(text.to_owned()).into_sql_str()).await?;
                    }
                }
                Self::Postgres(conn, _) => {
                    let other = Piece::of_any(&OWN_KEY, 1);
                    let text = committer::postgres_text(&[piece, other]);
                    conn.prepare(AssertSqlSafe(text).into_sql_str()).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn tables(&mut self) -> Vec<String> {
        match self {
            Self::Sqlite(conn, _) => sqlx::query_scalar(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
                AND name <> '_sqlx_migrations' ORDER BY name",
            )
            .fetch_all(conn)
            .await
            .expect("it runs"),
            Self::Postgres(conn, _) => sqlx::query_scalar(
                "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' \
                AND table_name <> '_sqlx_migrations' ORDER BY table_name COLLATE \"C\"",
            )
            .fetch_all(conn)
            .await
            .expect("it runs"),
        }
    }
}
