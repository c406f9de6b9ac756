//! Request bodies, which are JSON objects throughout.

use serde_json::{Map, Value};

use super::error::DcsError;

/// Parses a body as a JSON object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, DcsError> {
    if body.trim_ascii().is_empty() {
        return Err(DcsError::EmptyBody);
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(DcsError::Body),
    }
}
