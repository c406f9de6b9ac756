//! HTTP client of the commands that call a service: endpoint, credentials, and one signed request at a time.

mod args;
mod error;
pub mod fields;

use std::time::Instant;

use axum::http::{
    HeaderValue, Method, Request,
    header::{CONTENT_TYPE, DATE},
};
use jiff::Timestamp;
use serde_json::Value;
use url::Url;

pub use self::{
    args::{ClientArgs, ServiceArgs},
    error::ClientError,
};
use super::term;
use crate::{auth::Signer, model::Label};

/// A service with the credentials and the project to use.
pub struct Client {
    agent: ureq::Agent,
    endpoint: Url,
    /// `None` sends unsigned requests, for a service on this machine without authentication.
    signer: Option<Signer>,
    project_id: String,
}

impl Client {
    /// Returns the path of a resource of the project in the DCS API.
    pub fn dcs(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.project_id)
    }

    /// Returns the path of a resource of the project in the native API.
    pub fn native(&self, rest: &str) -> String {
        format!("/api/v1/projects/{}/{rest}", self.project_id)
    }

    /// Sends a GET request. `target` is a path with an optional query.
    ///
    /// # Errors
    /// The service cannot be reached, or answered with an error.
    pub fn get(&self, target: &str) -> Result<Value, ClientError> {
        self.send(&Method::GET, target, None)
    }

    /// Sends a POST request without a body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post(&self, target: &str) -> Result<Value, ClientError> {
        self.send(&Method::POST, target, None)
    }

    /// Sends a POST request.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_body(&self, target: &str, body: &Value) -> Result<Value, ClientError> {
        self.send(&Method::POST, target, Some(body))
    }

    /// Sends a PUT request.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn put(&self, target: &str, body: &Value) -> Result<Value, ClientError> {
        self.send(&Method::PUT, target, Some(body))
    }

    /// Sends a PATCH request.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn patch(&self, target: &str, body: &Value) -> Result<Value, ClientError> {
        self.send(&Method::PATCH, target, Some(body))
    }

    /// Returns the ID of an instance given by name or ID.
    ///
    /// # Errors
    /// As [`Client::get`], or no instance of the project has that name.
    pub fn instance_id(&self, name_or_id: &str) -> Result<String, ClientError> {
        if crate::model::is_id(name_or_id) {
            return Ok(name_or_id.to_owned());
        }
        let response = self.get(&self.native("instances"))?;
        let found =
            response["instances"].as_array().into_iter().flatten().find(|instance| instance["name"] == name_or_id);
        let id = found.and_then(|instance| instance["id"].as_str());
        id.map(str::to_owned).ok_or_else(|| {
            ClientError::usage(format!(
                "no instance {name_or_id:?} in this project; `keysweep instance list` lists them"
            ))
        })
    }

    fn send(&self, method: &Method, target: &str, payload: Option<&Value>) -> Result<Value, ClientError> {
        let bytes = payload.map(Value::to_string).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request::builder().method(method).uri(format!("{}{target}", self.origin()));
        if payload.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let mut request = request.body(bytes.clone()).map_err(|error| ClientError::usage(error.to_string()))?;
        if let Some(signer) = &self.signer {
            let signed = signer.sign(method, path, query, bytes.as_bytes(), Timestamp::now());
            request.headers_mut().extend(signed.map_err(|_| error::unusable_key())?);
        }
        let sent_at = Instant::now();
        let mut response = self.agent.run(request).map_err(|error| ClientError::unreachable(self.origin(), &error))?;
        let clock_skew = response.headers().get(DATE).and_then(clock_skew);
        let status = response.status().as_u16();
        term::detail(&format!("{method} {target} → {status} in {} ms", sent_at.elapsed().as_millis()));
        let text =
            response.body_mut().read_to_string().map_err(|error| ClientError::unreachable(self.origin(), &error))?;
        let body = plain(serde_json::from_str(&text).unwrap_or(Value::Null));
        match status {
            200..=299 if body.is_object() => Ok(body),
            _ => Err(error::read(self, status, &body, clock_skew)),
        }
    }

    fn origin(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }
}

/// Returns the query of a request, with its question mark; empty without parameters.
pub fn query(parameters: &[(&str, String)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    let query = query.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

/// Returns the parameters that select instances by labels.
pub fn label_parameters(labels: &[Label]) -> Vec<(&'static str, String)> {
    labels.iter().map(|label| ("label", label.to_string())).collect()
}

/// Returns a body without the control characters in its texts: the service may be another one than is believed, and could drive the
/// terminal. Line breaks and tabs stay.
fn plain(value: Value) -> Value {
    let text = |text: String| text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect::<String>();
    match value {
        Value::String(found) => Value::String(text(found)),
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (text(name), plain(value))).collect(),
        other => other,
    }
}

/// Returns how far the local clock is ahead of a Date header, seconds.
fn clock_skew(date: &HeaderValue) -> Option<i64> {
    let theirs = jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok()?.timestamp();
    Some(Timestamp::now().duration_since(theirs).as_secs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_a_service_answers_drives_the_terminal() {
        let body = json!({
            "name\u{1b}": "\u{1b}[2Jcache\u{9b}31m\r", "list": [{ "message": "two\nlines\u{7}" }], "keys": 7, "none": null,
        });
        let expected = json!({ "name": "[2Jcache31m", "list": [{ "message": "two\nlines" }], "keys": 7, "none": null });
        assert_eq!(plain(body), expected);
    }
}
