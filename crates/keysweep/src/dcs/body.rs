//! Bodies of requests, as far as they are JSON objects.

use serde_json::{Map, Value};

use super::error::DcsError;

/// The object that a body must be.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, DcsError> {
    if body.trim_ascii().is_empty() {
        return Err(DcsError::EmptyBody);
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(DcsError::Body),
    }
}
