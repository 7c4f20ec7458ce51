//! Transaction IDs, as requests bring them ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers

use ruma::TransactionId;

use crate::{account::LocalDevice, http::ApiError, room::write::txn::TxnKey};

/// The maximum length of a transaction ID. It is stored with every event; clients use counters or UUIDs.
const MAX_TXN_ID_BYTES: usize = 255;

/// The key by which a repeated request is recognized. `scope` is the endpoint with its other path parameters.
///
/// # Errors
/// `M_INVALID_PARAM` for an ID that is too long or has control characters.
pub(super) fn key(caller: &LocalDevice, scope: String, txn_id: &TransactionId) -> Result<TxnKey, ApiError> {
    let txn = txn_id.as_str();
    if txn.len() > MAX_TXN_ID_BYTES {
        return Err(ApiError::invalid_param(format!("A transaction ID has at most {MAX_TXN_ID_BYTES} bytes.")));
    }
    if txn.chars().any(char::is_control) {
        return Err(ApiError::invalid_param("A transaction ID has no control characters."));
    }
    if scope.contains('\0') {
        // It names the type of the event, and PostgreSQL stores no text with a NUL.
        return Err(ApiError::invalid_param("A type holds no NUL."));
    }
    Ok(TxnKey { device: caller.device_nid, scope: scope.into(), txn: txn.into() })
}
