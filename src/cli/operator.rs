//! The operator's access to the data: through the running server if there is one, or else in the database itself.

use std::{error::Error, io, os::unix::fs::MetadataExt as _, path::PathBuf};

use serde_json::Value;

use crate::{
    admin_api::{self, Operation},
    app::App,
    config::{Config, DatabaseTarget},
    report::Report,
    server::{build, control},
};

/// Carries out operations.
#[derive(Clone)]
pub(super) enum Operator {
    /// A server runs on this data directory.
    Running(PathBuf),
    /// No server runs, and this process has opened the database.
    Alone(App),
}

impl Operator {
    /// Finds the running server, or opens the database of a stopped one. Never creates a server: a command in the wrong
    /// directory would create a second one.
    pub(super) async fn reach(config: Config) -> Result<Self, Box<dyn Error>> {
        if tokio::net::UnixStream::connect(control::socket(&config.data_dir)).await.is_ok() {
            return Ok(Self::Running(config.data_dir));
        }
        check_user(&config)?;
        if !build::has_server(&config).await? {
            return Err(no_server(&config).into());
        }
        Ok(Self::Alone(build::app(config, build::Surroundings::default()).await?))
    }

    pub(super) async fn carry_out(&self, operation: Operation) -> Result<Value, Box<dyn Error>> {
        match self {
            Self::Running(data_dir) => {
                control::ask(data_dir, &operation).await?.ok_or_else(|| "the server stopped just now; try again".into())
            }
            Self::Alone(app) => {
                admin_api::carry_out(app, operation).await.map_err(|error| Report(&error).to_string().into())
            }
        }
    }

    /// Reads a whole listing, page by page; `next` builds the request for the entries after a given one.
    pub(super) async fn list(&self, next: impl Fn(Option<&Value>) -> Operation) -> Result<Vec<Value>, Box<dyn Error>> {
        let mut entries: Vec<Value> = Vec::new();
        loop {
            let Value::Array(page) = self.carry_out(next(entries.last())).await? else {
                return Err("the listing cannot be read".into());
            };
            if page.is_empty() {
                return Ok(entries);
            }
            entries.extend(page);
        }
    }

    pub(super) async fn close(self) {
        if let Self::Alone(app) = self {
            app.db.close().await;
        }
    }
}

/// Refuses to open the database as another user than the server's: SQLite would make files that the server cannot open.
fn check_user(config: &Config) -> Result<(), String> {
    let owner = match std::fs::metadata(&config.data_dir) {
        Ok(found) => found.uid(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("the data directory {} cannot be used: {error}", config.data_dir.display())),
    };
    let ours = rustix::process::geteuid().as_raw();
    if owner == ours {
        return Ok(());
    }
    Err(format!(
        "the server is not running, and its data directory {} belongs to the user with number {owner}, not to {ours}: run \
         this as that user (sudo -u '#{owner}' sabha …), or start the server and ask again",
        config.data_dir.display()
    ))
}

/// The error text of a verb that needs a server when there is none.
pub(super) fn no_server(config: &Config) -> String {
    let data_dir = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    format!(
        "there is no server in {} (with the database {}): go to its directory, or name its configuration with -c FILE; a \
         new server is made by its first start, `sabha serve`",
        data_dir.display(),
        match config.database_url().target() {
            DatabaseTarget::Sqlite(path) => path.display().to_string(),
            DatabaseTarget::Postgres(url) => url.to_string(),
        }
    )
}

/// Prints a listing as JSON, or for people as one `line` per entry.
pub(super) fn print_list(entries: &[Value], json: bool, nothing: &str, line: impl Fn(&Value) -> String) {
    if json {
        println!("{}", serde_json::to_string_pretty(entries).unwrap_or_default());
    } else if entries.is_empty() {
        println!("{nothing}");
    } else {
        entries.iter().for_each(|entry| println!("{}", line(entry)));
    }
}

/// Prints one result as JSON, or as `text` for people.
pub(super) fn print(result: &Value, json: bool, text: &str) {
    if json { println!("{result}") } else { println!("{text}") }
}

/// A moment in milliseconds since 1970, as a date.
pub(super) fn date(moment_ms: &Value) -> String {
    let Some(moment_ms) = moment_ms.as_i64() else {
        return String::new();
    };
    // Converts days to a Gregorian date. Years begin in March here, so that the leap day comes last.
    let days = moment_ms.div_euclid(86_400_000) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_shown_as_dates() {
        let check = |moment_ms: i64, expected: &str| assert_eq!(date(&moment_ms.into()), expected);
        check(0, "1970-01-01");
        check(951_782_400_000, "2000-02-29");
        check(951_868_800_000, "2000-03-01");
        check(1_767_225_599_999, "2025-12-31");
        assert_eq!(date(&Value::Null), "");
    }
}
