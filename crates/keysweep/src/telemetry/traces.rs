//! Traces: where the time of a task went, from its creation over its claims to the sweep of each primary, sent to an
//! OpenTelemetry collector (OTLP over HTTP, JSON) where one is named.
//!
//! A task's id is its trace's id, and half of it that of the span that everything else hangs on: so all replicas write the
//! same trace, and nothing about it has to be stored or sent along. A few spans a task do not need the OpenTelemetry SDK,
//! with its own runtime, HTTP client and Protocol Buffers; they are written here as the protocol says.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::loopback::is_loopback;

/// Spans that wait for the collector; what comes beyond is dropped.
const QUEUE: usize = 2_048;
const BATCH: usize = 256;
/// How long a span waits for others to go with.
const LINGER: Duration = Duration::from_millis(500);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// One span among those of its task. Zero is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(u64);

impl SpanId {
    /// The span of a task's creation, which all others descend from.
    pub fn root(task_id: &str) -> Self {
        let half = task_id.get(16..32).and_then(|half| u64::from_str_radix(half, 16).ok());
        Self(half.unwrap_or_default().max(1))
    }
}

/// Where spans go; nowhere, unless a collector is named. Clones send to the same one.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Exporter>>);

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Traces(on)" } else { "Traces(off)" })
    }
}

struct Exporter {
    /// Taken at the end.
    sender: Mutex<Option<SyncSender<Span>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the environment says of the collector, in the variables that OpenTelemetry has for it.
struct Settings {
    url: String,
    /// Whether that is on this machine.
    is_here: bool,
    headers: Vec<(String, String)>,
    service: String,
}

impl Settings {
    /// `None`: no traces are wanted. Errors name the variable and never its value, in which there may be a password.
    fn read(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let own = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let (name, url) = match (set(own), set(all)) {
            _ if off => return Ok(None),
            (Some(url), _) => (own, url),
            (None, Some(url)) => (all, format!("{}/v1/traces", url.trim_end_matches('/'))),
            (None, None) => return Ok(None),
        };
        let parsed = url::Url::parse(&url).with_context(|| format!("{name} is no URL; write http://HOST:4318"))?;
        if parsed.scheme() != "http" || !parsed.has_host() {
            bail!(
                "{name}: traces are sent over plain HTTP only; name a collector on this machine or in this network, such as http://127.0.0.1:4318"
            );
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            // A collector takes JSON wherever it takes Protocol Buffers over HTTP.
            if set(name).is_some_and(|protocol| !protocol.starts_with("http/")) {
                bail!(
                    "{name}: traces are sent as http/json only; leave it out, and name the collector's port for HTTP (4318)"
                );
            }
        }
        let headers = set("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or_else(|| set("OTEL_EXPORTER_OTLP_HEADERS"));
        let headers = headers.unwrap_or_default();
        let pairs = headers.split(',').filter(|pair| !pair.trim().is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
            Some((name.trim().to_owned(), value.into_owned()))
        });
        let headers =
            pairs.collect::<Option<_>>().context("OTEL_EXPORTER_OTLP_HEADERS: write NAME=VALUE,NAME=VALUE")?;
        let is_here = parsed.host_str().is_some_and(is_loopback);
        Ok(Some(Self { url, is_here, headers, service: set("OTEL_SERVICE_NAME").unwrap_or_else(|| "keysweep".into()) }))
    }
}

impl Traces {
    /// As the environment says (`OTEL_EXPORTER_OTLP_ENDPOINT` and what belongs to it).
    pub fn from_environment() -> anyhow::Result<Self> {
        let settings = Settings::read(|name| std::env::var(name).ok())?;
        let Some(settings) = settings else { return Ok(Self::default()) };
        let (sender, receiver) = sync_channel(QUEUE);
        let thread =
            thread::Builder::new().name("keysweep-traces".into()).spawn(move || export(&receiver, &settings))?;
        Ok(Self(Some(Arc::new(Exporter { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) }))))
    }

    /// Begins a span of this task's trace, below `parent`. It is sent when it is dropped.
    pub fn begin(&self, task_id: &str, parent: SpanId, name: &'static str) -> OpenSpan {
        self.open(task_id, SpanId(rand::random::<u64>().max(1)), Some(parent), name)
    }

    /// Begins the span of this task's creation.
    pub fn begin_root(&self, task_id: &str, name: &'static str) -> OpenSpan {
        self.open(task_id, SpanId::root(task_id), None, name)
    }

    fn open(&self, task_id: &str, id: SpanId, parent: Option<SpanId>, name: &'static str) -> OpenSpan {
        let span = Span {
            trace_id: task_id.to_owned(),
            id,
            parent,
            name,
            start: SystemTime::now(),
            end: None,
            attributes: vec![("keysweep.task.id", task_id.into())],
            error: None,
        };
        OpenSpan { traces: self.clone(), span: Some(span) }
    }

    fn send(&self, span: Span) {
        let Some(exporter) = &self.0 else { return };
        let sender = exporter.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender {
            // Full: the collector is away, which the exporter has said, and nobody waits for it.
            let _ = sender.try_send(span);
        }
    }

    /// Sends what is left, and waits for that.
    pub async fn close(self) {
        let Some(exporter) = self.0 else { return };
        drop(exporter.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = exporter.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let ended = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(PATIENCE * 2, ended).await.is_err() {
            tracing::warn!("the last spans are dropped: the collector does not take them");
        }
    }
}

struct Span {
    trace_id: String,
    id: SpanId,
    parent: Option<SpanId>,
    name: &'static str,
    start: SystemTime,
    end: Option<SystemTime>,
    attributes: Vec<(&'static str, Value)>,
    error: Option<String>,
}

/// A span that has not ended.
pub struct OpenSpan {
    traces: Traces,
    span: Option<Span>,
}

impl OpenSpan {
    /// Its id, for spans below it.
    pub fn id(&self) -> SpanId {
        self.span.as_ref().map_or(SpanId(0), |span| span.id)
    }

    /// Notes something about it; never a key's name, a value or a secret.
    pub fn note(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            span.attributes.push((name, value.into()));
        }
    }

    /// What it stands for has failed, for this reason.
    pub fn fail(&mut self, reason: impl Into<String>) {
        if let Some(span) = &mut self.span {
            span.error = Some(reason.into());
        }
    }

    /// It began earlier than it was opened, and ended so long after that; without an end, when it is dropped.
    pub fn at(&mut self, start: SystemTime, lasted: Option<Duration>) {
        if let Some(span) = &mut self.span {
            (span.start, span.end) = (start, lasted.map(|lasted| start + lasted));
        }
    }

    /// It is not to be told of.
    pub fn forget(mut self) {
        self.span = None;
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.end.get_or_insert_with(SystemTime::now);
            self.traces.send(span);
        }
    }
}

fn export(spans: &Receiver<Span>, settings: &Settings) {
    // No proxy leads to this machine.
    let proxy = if settings.is_here { None } else { ureq::Proxy::try_from_env() };
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).proxy(proxy).build().into();
    let mut failing = false;
    while let Ok(first) = spans.recv() {
        let (mut batch, deadline) = (vec![first], Instant::now() + LINGER);
        while batch.len() < BATCH {
            match spans.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(span) => batch.push(span),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let request = settings
            .headers
            .iter()
            .fold(agent.post(&settings.url), |request, (name, value)| request.header(name, value));
        let body = document(&settings.service, &batch).to_string();
        match request.header("content-type", "application/json").send(body) {
            Ok(_) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "the collector does not take traces; they are dropped until it does");
            }
            Err(_) => {}
        }
    }
}

/// The spans as OTLP has them in JSON: ids in hexadecimal digits, 64-bit numbers as text.
fn document(service: &str, spans: &[Span]) -> Value {
    let spans: Vec<Value> = spans.iter().map(span_document).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes([
            ("service.name", service.into()), ("service.version", env!("CARGO_PKG_VERSION").into()),
        ].iter()) },
        "scopeSpans": [{ "scope": { "name": "keysweep" }, "spans": spans }],
    }] })
}

fn span_document(span: &Span) -> Value {
    const INTERNAL: u32 = 1;
    const ERROR: u32 = 2;
    let nanos = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let hex = |id: SpanId| format!("{:016x}", id.0);
    let mut document = json!({
        "traceId": span.trace_id,
        "spanId": hex(span.id),
        "name": span.name,
        "kind": INTERNAL,
        "startTimeUnixNano": nanos(span.start),
        "endTimeUnixNano": nanos(span.end.unwrap_or(span.start)),
        "attributes": attributes(span.attributes.iter()),
    });
    if let Some(parent) = span.parent {
        document["parentSpanId"] = hex(parent).into();
    }
    if let Some(error) = &span.error {
        document["status"] = json!({ "code": ERROR, "message": error });
    }
    document
}

fn attributes<'a>(attributes: impl Iterator<Item = &'a (&'static str, Value)>) -> Value {
    let typed = |value: &Value| match value {
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        other => json!({ "stringValue": other.to_string() }),
    };
    attributes.map(|(name, value)| json!({ "key": name, "value": typed(value) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> anyhow::Result<Option<Settings>> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::read(find)
    }

    #[test]
    fn without_an_endpoint_or_when_told_so_there_are_no_traces() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318");
        for variables in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[endpoint, ("OTEL_SDK_DISABLED", "true")],
            &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(settings(variables).expect("settings").is_none(), "{variables:?}");
        }
    }

    #[test]
    fn the_endpoint_for_traces_is_taken_as_it_is_and_the_one_for_all_gets_their_path() {
        let url = |variables: &[(&str, &str)]| settings(variables).expect("settings").expect("on").url;
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318/");
        assert_eq!(url(&[all]), "http://h:4318/v1/traces");
        assert_eq!(url(&[all, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h:1/spans")]), "http://h:1/spans");
        let settings = settings(&[all, ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, tenant=shop")]);
        let headers = settings.expect("settings").expect("on").headers;
        assert_eq!(headers, [("authorization", "Bearer x"), ("tenant", "shop")].map(|(n, v)| (n.into(), v.into())));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_remedy_and_without_the_value() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318");
        for variables in [
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://u:secret@h")][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "secret")],
            &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            &[endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "secret")],
        ] {
            let error = format!("{:#}", settings(variables).err().expect("an error"));
            assert!(error.contains("OTEL_EXPORTER_OTLP_") && !error.contains("secret"), "{error}");
        }
    }
}
