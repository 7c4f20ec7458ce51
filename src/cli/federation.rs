//! `sabha federation keys list|rotate|import`.

use std::{error::Error, fs::File, io::Read as _, path::Path};

use sabha_federation::key_file;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    KeysCommand,
    operator::{Operator, date, print, print_list},
};
use crate::admin_api::Operation;

/// Carries out the verb.
pub(super) async fn run(command: KeysCommand, operator: &Operator) -> Result<(), Box<dyn Error>> {
    match command {
        KeysCommand::List { json } => {
            let keys = operator.carry_out(Operation::ListKeys).await?;
            let keys = keys.as_array().ok_or("the listing cannot be read")?;
            print_list(keys, json, "There is no signing key.", |key| {
                let text = |field: &str| key[field].as_str().unwrap_or_default();
                let state = match &key["expired_at"] {
                    Value::Null => "in use".to_owned(),
                    expired_at => format!("until {}", date(expired_at)),
                };
                let since = date(&key["created_at"]);
                format!("{:<24} {}  since {since}  {state}", text("key_id"), text("public_key"))
            });
        }
        KeysCommand::Rotate { json } => {
            let result = operator.carry_out(Operation::RotateKey).await?;
            tell(&result, json);
        }
        KeysCommand::Import { file, json } => {
            let file = read(&file)?;
            let result = operator.carry_out(Operation::ImportKeys { file }).await?;
            tell(&result, json);
        }
    }
    Ok(())
}

fn tell(result: &Value, json: bool) {
    let text = |field: &str| result[field].as_str().unwrap_or_default();
    let (key_id, file) = (text("key_id"), text("file"));
    let said = if result["backup_needed"] == true {
        format!("This server signs with {key_id} now. Back up {file}: without it the database is refused.")
    } else {
        format!("This server signs with {key_id} already.")
    };
    print(result, json, &said);
}

/// Reads a key file of any homeserver, and returns it in our form.
fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{} cannot be imported: {error}", path.display());
    let mut bytes = Zeroizing::new(Vec::new());
    // One byte more than the maximum, so that a larger file is refused as such.
    let limit = key_file::MAX_BYTES as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(&error))?;
    let keys = key_file::read(&bytes).map_err(|error| unreadable(&error))?;
    let mut lines = Zeroizing::new(String::new());
    keys.iter().for_each(|key| lines.push_str(&key_file::write(key)));
    Ok(lines)
}
