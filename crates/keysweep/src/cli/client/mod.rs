//! What the commands that call a remote service have in common: where it is, who calls, and one signed request at a time.

pub mod answer;
mod args;
mod refusal;

use std::time::Duration;

use axum::http::{
    HeaderValue, Method, Request,
    header::{CONTENT_TYPE, DATE},
};
use jiff::Timestamp;
use serde_json::Value;
use url::Url;

pub use self::{args::ClientArgs, refusal::Refusal};
use crate::auth::Signer;

/// How long a service may take to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// A service, and who we are to it.
pub struct Client {
    agent: ureq::Agent,
    endpoint: Url,
    /// Without one requests go out unsigned: a service on this machine may ask nobody for credentials.
    signer: Option<Signer>,
    project_id: String,
}

impl Client {
    /// A project's part of the DCS API.
    pub fn dcs(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.project_id)
    }

    /// A project's part of keysweep's own API.
    pub fn own(&self, rest: &str) -> String {
        format!("/api/v1/projects/{}/{rest}", self.project_id)
    }

    /// Asks; the query stands behind a question mark.
    pub fn get(&self, target: &str) -> Result<Value, Refusal> {
        self.send(&Method::GET, target, None)
    }

    /// Has something done.
    pub fn post(&self, target: &str) -> Result<Value, Refusal> {
        self.send(&Method::POST, target, None)
    }

    /// Replaces something.
    pub fn put(&self, target: &str, body: &Value) -> Result<Value, Refusal> {
        self.send(&Method::PUT, target, Some(body))
    }

    /// The id of an instance that somebody named, by its name or its id.
    pub fn instance_id(&self, named: &str) -> Result<String, Refusal> {
        if crate::fleet::is_id(named) {
            return Ok(named.to_owned());
        }
        let answer = self.get(&self.own("instances"))?;
        let found = answer["instances"].as_array().into_iter().flatten().find(|instance| instance["name"] == named);
        let id = found.and_then(|instance| instance["id"].as_str());
        id.map(str::to_owned).ok_or_else(|| {
            Refusal::absent(format!(
                "no instance of this project is called {named:?}; `keysweep instance list` shows what there is"
            ))
        })
    }

    fn send(&self, method: &Method, target: &str, body: Option<&Value>) -> Result<Value, Refusal> {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request::builder().method(method).uri(format!("{}{target}", self.origin()));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let mut request = request.body(bytes.clone()).map_err(|error| Refusal::usage(error.to_string()))?;
        if let Some(signer) = &self.signer {
            let signed = signer.sign(method, path, query, bytes.as_bytes(), Timestamp::now());
            request.headers_mut().extend(signed.map_err(|_| args::unusable_key())?);
        }
        let mut answer = self.agent.run(request).map_err(|error| Refusal::away(self.origin(), &error))?;
        let clock = answer.headers().get(DATE).and_then(seconds_off);
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().map_err(|error| Refusal::away(self.origin(), &error))?;
        let said = serde_json::from_str(&text).unwrap_or(Value::Null);
        match status {
            200..=299 if said.is_object() => Ok(said),
            _ => Err(refusal::read(self, status, &said, clock)),
        }
    }

    fn origin(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }
}

/// How far this machine's clock is ahead of the one that a Date header was written by, seconds.
fn seconds_off(date: &HeaderValue) -> Option<i64> {
    let theirs = jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok()?.timestamp();
    Some(Timestamp::now().duration_since(theirs).as_secs())
}
