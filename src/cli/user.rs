//! `sabha user create|list|reset-password|promote|demote|deactivate`.

use std::{error::Error, io::BufRead as _};

use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    UserCommand,
    operator::{Operator, date, print, print_list},
};
use crate::{account::session::tokens::random_text, admin_api::Operation};

/// Length of a password that we generate, in letters and digits: too long to guess, short enough to type.
const PASSWORD_LENGTH: usize = 20;

/// Carries out the verb.
pub(super) async fn run(command: UserCommand, operator: &Operator) -> Result<(), Box<dyn Error>> {
    match command {
        UserCommand::Create { name, admin, password_stdin, json } => {
            let (password, chosen) = password(password_stdin)?;
            let mut result = operator.carry_out(Operation::CreateUser { name, password, admin }).await?;
            let what = if admin { "Created the admin" } else { "Created" };
            tell(&mut result, what, chosen, json);
        }
        UserCommand::List { json } => {
            let after = |last: Option<&Value>| Operation::ListUsers {
                after: last.and_then(|user| user["user_id"].as_str()).and_then(|id| id.try_into().ok()),
            };
            let users = operator.list(after).await?;
            print_list(
                &users,
                json,
                "There is no account yet. Make the first: sabha user create NAME --admin",
                |user| {
                    let state = match (user["deactivated_at"].is_i64(), user["admin"] == true) {
                        (true, _) => format!("deactivated {}", date(&user["deactivated_at"])),
                        (false, true) => "admin".to_owned(),
                        (false, false) => String::new(),
                    };
                    let line = format!(
                        "{:<40} {}  {state}",
                        user["user_id"].as_str().unwrap_or_default(),
                        date(&user["created_at"])
                    );
                    line.trim_end().to_owned()
                },
            );
        }
        UserCommand::ResetPassword { name, password_stdin, json } => {
            let (password, chosen) = password(password_stdin)?;
            let mut result = operator.carry_out(Operation::ResetPassword { name, password }).await?;
            tell(&mut result, "Signed out everywhere, with a new password:", chosen, json);
        }
        UserCommand::Promote { name, json } => {
            let result = operator.carry_out(Operation::SetAdmin { name, admin: true }).await?;
            print(&result, json, &format!("{} is an admin now.", result["user_id"].as_str().unwrap_or_default()));
        }
        UserCommand::Demote { name, json } => {
            let result = operator.carry_out(Operation::SetAdmin { name, admin: false }).await?;
            print(&result, json, &format!("{} is no admin any more.", result["user_id"].as_str().unwrap_or_default()));
        }
        UserCommand::Deactivate { name, json } => {
            let result = operator.carry_out(Operation::DeactivateUser { name }).await?;
            print(&result, json, &format!("Deactivated {} for good.", result["user_id"].as_str().unwrap_or_default()));
        }
    }
    Ok(())
}

type Secret = Zeroizing<String>;

/// Returns the password, and a copy to print if we generated it.
fn password(from_stdin: bool) -> Result<(Secret, Option<Secret>), Box<dyn Error>> {
    if !from_stdin {
        let chosen = Zeroizing::new(random_text(PASSWORD_LENGTH));
        return Ok((chosen.clone(), Some(chosen)));
    }
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().lock().read_line(&mut line)?;
    let password = Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if password.is_empty() {
        return Err("the first line of standard input is empty; write the password there".into());
    }
    Ok((password, None))
}

fn tell(result: &mut Value, what: &str, chosen: Option<Secret>, json: bool) {
    let user_id = result["user_id"].as_str().unwrap_or_default().to_owned();
    let mut text = format!("{what} {user_id}");
    if let Some(password) = chosen {
        text.push_str(&format!("\n  password: {}   (shown only now)", *password));
        result["password"] = password.as_str().into();
    }
    print(result, json, &text);
}
