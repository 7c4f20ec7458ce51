//! `sabha token new|list|revoke`.

use std::error::Error;

use serde_json::Value;

use super::{
    TokenCommand,
    operator::{Operator, date, print, print_list},
};
use crate::{account::millis, admin_api::Operation, config::RegistrationMode};

/// A note about a new token when registration does not use tokens.
fn note(mode: &str) -> Option<String> {
    match mode.parse().ok()? {
        RegistrationMode::Token => None,
        RegistrationMode::Closed => Some(
            "registration is closed, so nobody can register with this token until the configuration says \
             registration.mode = \"token\" and the server is started again"
                .to_owned(),
        ),
        RegistrationMode::Open => Some("registration is open: people can register without a token, too".to_owned()),
    }
}

/// Carries out the verb.
pub(super) async fn run(command: TokenCommand, operator: &Operator) -> Result<(), Box<dyn Error>> {
    match command {
        TokenCommand::New { uses, expires, json } => {
            let lifetime_ms = expires.map(|expires| millis(expires.duration()));
            let result = operator.carry_out(Operation::NewToken { uses, lifetime_ms }).await?;
            print(&result, json, result["token"].as_str().unwrap_or_default());
            if let Some(note) = note(result["registration"].as_str().unwrap_or_default()) {
                // Not to standard output: scripts take the token from there.
                eprintln!("note: {note}");
            }
        }
        TokenCommand::List { json } => {
            let after = |last: Option<&Value>| Operation::ListTokens {
                after: last.and_then(|token| token["token"].as_str()).map(str::to_owned),
            };
            let tokens = operator.list(after).await?;
            print_list(&tokens, json, "There is no token.", |token| {
                let used = token["used"].as_i64().unwrap_or_default();
                let uses = match token["uses_allowed"].as_i64() {
                    Some(allowed) => format!("{} of {allowed} left", (allowed - used).max(0)),
                    None => format!("used {used} times"),
                };
                let expires = match &token["expires_at"] {
                    Value::Null => String::new(),
                    expires_at => format!("until {}", date(expires_at)),
                };
                let line = format!("{:<26} {uses:<18} {expires}", token["token"].as_str().unwrap_or_default());
                line.trim_end().to_owned()
            });
        }
        TokenCommand::Revoke { token, json } => {
            let result = operator.carry_out(Operation::RevokeToken { token }).await?;
            print(&result, json, "Revoked. Accounts that were made with it stay.");
        }
    }
    Ok(())
}
