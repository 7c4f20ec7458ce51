//! The database engine of a test.
//!
//! `SABHA_TEST_ENGINES` is `sqlite`, `postgres` or `both` (the default). PostgreSQL's tests are skipped where it is not
//! installed, unless `SABHA_REQUIRE_POSTGRES=1`.

use std::env;

use super::TestServer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    /// Returns whether tests on this engine are requested.
    pub fn is_wanted(self) -> bool {
        let wanted = env::var("SABHA_TEST_ENGINES").unwrap_or_else(|_| "both".to_owned());
        match wanted.as_str() {
            "both" => true,
            "sqlite" => self == Self::Sqlite,
            "postgres" => self == Self::Postgres,
            other => panic!("SABHA_TEST_ENGINES is sqlite, postgres or both, not {other}"),
        }
    }
}

/// The argument of a test of [`both_engines!`]: a server, or only the engine for a server that the test starts itself.
pub trait FromEngine: Sized {
    /// `None` when the engine is not installed; then the test is skipped.
    async fn from_engine(engine: Engine) -> Option<Self>;
}

impl FromEngine for TestServer {
    async fn from_engine(engine: Engine) -> Option<Self> {
        if !engine.is_wanted() {
            println!("skipped: SABHA_TEST_ENGINES excludes {engine:?}");
            return None;
        }
        TestServer::builder().engine(engine).try_start().await
    }
}

impl FromEngine for Engine {
    async fn from_engine(engine: Engine) -> Option<Self> {
        if !engine.is_wanted() {
            println!("skipped: SABHA_TEST_ENGINES excludes {engine:?}");
            return None;
        }
        let is_there = engine == Engine::Sqlite || super::postgres::PostgresDatabase::create().await.is_some();
        is_there.then_some(engine)
    }
}

/// Turns each `async fn name(server: TestServer)` into the tests `name::sqlite` and `name::postgres`. A test that needs
/// a different server takes `engine: Engine` and begins with `TestServer::builder().engine(engine)`.
#[macro_export]
macro_rules! both_engines {
    ($($(#[$meta:meta])* async fn $name:ident($($argument:ident)+: $wants:ty) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports, reason = "a short test may use nothing of its module")]
            use super::*;

            async fn check($($argument)+: $wants) $body

            $(#[$meta])*
            #[tokio::test]
            async fn sqlite() {
                if let Some(wanted) = <$wants as $crate::harness::FromEngine>::from_engine($crate::harness::Engine::Sqlite).await {
                    check(wanted).await;
                }
            }

            $(#[$meta])*
            #[tokio::test]
            async fn postgres() {
                if let Some(wanted) = <$wants as $crate::harness::FromEngine>::from_engine($crate::harness::Engine::Postgres).await {
                    check(wanted).await;
                }
            }
        }
    )+};
}
