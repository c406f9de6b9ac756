//! Traces of tasks, from creation over claims to the scan of each primary, exported to an OpenTelemetry collector (OTLP
//! over HTTP, JSON) if the environment names one.
//!
//! The task id is the trace id, and half of the task id is the id of the root span: all replicas write to the same trace
//! without storing or passing a context. The module writes OTLP itself because a few spans per task do not justify the
//! OpenTelemetry SDK with its own runtime, HTTP client and Protocol Buffers.

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

/// Capacity of the export queue. Spans beyond it are dropped.
const QUEUE: usize = 2_048;
const BATCH: usize = 256;
/// How long a span waits for others in the same batch.
const BATCH_DELAY: Duration = Duration::from_millis(500);
/// Timeout of one request to the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// Id of a span within its trace. Zero means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(u64);

impl SpanId {
    /// Returns the id of the root span: the creation of the task.
    pub fn root(task_id: &str) -> Self {
        let half = task_id.get(16..32).and_then(|half| u64::from_str_radix(half, 16).ok());
        Self(half.unwrap_or_default().max(1))
    }
}

/// Exports spans, if a collector is configured. Clones share one exporter.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Exporter>>);

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Traces(on)" } else { "Traces(off)" })
    }
}

struct Exporter {
    /// Taken on close, which ends the thread.
    sender: Mutex<Option<SyncSender<Span>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Settings of the collector from the standard OpenTelemetry variables.
struct Settings {
    url: String,
    /// Whether the URL names this machine.
    is_loopback: bool,
    headers: Vec<(String, String)>,
    service: String,
}

impl Settings {
    /// Reads the settings; `None` if tracing is off. Errors name the variable, never its value: it may hold a password.
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
        let parsed = url::Url::parse(&url)
            .with_context(|| format!("invalid {name}: expected a URL such as http://HOST:4318"))?;
        if parsed.scheme() != "http" || !parsed.has_host() {
            bail!(
                "invalid {name}: traces are sent over plain HTTP only; use a collector on this machine or in this network, such as http://127.0.0.1:4318"
            );
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            // Every collector that accepts Protocol Buffers over HTTP accepts JSON too.
            if set(name).is_some_and(|protocol| !protocol.starts_with("http/")) {
                bail!(
                    "invalid {name}: traces are sent as http/json only; unset it and use the HTTP port of the collector (4318)"
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
        let headers = pairs
            .collect::<Option<_>>()
            .context("invalid OTEL_EXPORTER_OTLP_HEADERS: expected NAME=VALUE,NAME=VALUE")?;
        let is_loopback = parsed.host_str().is_some_and(is_loopback);
        Ok(Some(Self {
            url,
            is_loopback,
            headers,
            service: set("OTEL_SERVICE_NAME").unwrap_or_else(|| "keysweep".into()),
        }))
    }
}

impl Traces {
    /// Starts an exporter as configured by `OTEL_EXPORTER_OTLP_ENDPOINT` and related variables.
    ///
    /// # Errors
    /// A variable is invalid.
    pub fn from_environment() -> anyhow::Result<Self> {
        let settings = Settings::read(|name| std::env::var(name).ok())?;
        let Some(settings) = settings else { return Ok(Self::default()) };
        let (sender, receiver) = sync_channel(QUEUE);
        let thread =
            thread::Builder::new().name("keysweep-traces".into()).spawn(move || export(&receiver, &settings))?;
        Ok(Self(Some(Arc::new(Exporter { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) }))))
    }

    /// Opens a span in the trace of this task, below `parent`. The span is exported when dropped.
    pub fn begin(&self, task_id: &str, parent: SpanId, name: &'static str) -> OpenSpan {
        self.open(task_id, SpanId(rand::random::<u64>().max(1)), Some(parent), name)
    }

    /// Opens the root span: the creation of the task.
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
            // A full queue means the collector is unavailable, which the exporter has logged. The task does not wait.
            let _ = sender.try_send(span);
        }
    }

    /// Exports the remaining spans, for at most twice the export timeout.
    pub async fn close(self) {
        let Some(exporter) = self.0 else { return };
        drop(exporter.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = exporter.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let ended = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(EXPORT_TIMEOUT * 2, ended).await.is_err() {
            tracing::warn!("dropped the last spans: the collector does not accept them");
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

/// A span under construction.
pub struct OpenSpan {
    traces: Traces,
    span: Option<Span>,
}

impl OpenSpan {
    /// Returns the id, for child spans.
    pub fn id(&self) -> SpanId {
        self.span.as_ref().map_or(SpanId(0), |span| span.id)
    }

    /// Adds an attribute. Must never be a key name, a value or a secret.
    pub fn note(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            span.attributes.push((name, value.into()));
        }
    }

    /// Marks the operation as failed.
    pub fn fail(&mut self, reason: impl Into<String>) {
        if let Some(span) = &mut self.span {
            span.error = Some(reason.into());
        }
    }

    /// Sets the start time and the duration. Without a duration the span ends when dropped.
    pub fn at(&mut self, start: SystemTime, lasted: Option<Duration>) {
        if let Some(span) = &mut self.span {
            (span.start, span.end) = (start, lasted.map(|lasted| start + lasted));
        }
    }

    /// Discards the span.
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
    // A proxy from the environment cannot reach a collector on this machine.
    let proxy = if settings.is_loopback { None } else { ureq::Proxy::try_from_env() };
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(EXPORT_TIMEOUT)).proxy(proxy).build().into();
    let mut failing = false;
    while let Ok(first) = spans.recv() {
        let (mut batch, deadline) = (vec![first], Instant::now() + BATCH_DELAY);
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
                tracing::warn!(%error, "cannot export traces; spans are dropped until the collector accepts them");
            }
            Err(_) => {}
        }
    }
}

/// Encodes spans as OTLP JSON: ids as hex digits, 64-bit integers as strings.
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
    fn tracing_is_off_without_an_endpoint_or_when_disabled() {
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
    fn the_traces_endpoint_is_used_as_is_and_the_general_one_gets_a_path() {
        let url = |variables: &[(&str, &str)]| settings(variables).expect("settings").expect("on").url;
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318/");
        assert_eq!(url(&[all]), "http://h:4318/v1/traces");
        assert_eq!(url(&[all, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h:1/spans")]), "http://h:1/spans");
        let settings = settings(&[all, ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, tenant=shop")]);
        let headers = settings.expect("settings").expect("on").headers;
        assert_eq!(headers, [("authorization", "Bearer x"), ("tenant", "shop")].map(|(n, v)| (n.into(), v.into())));
    }

    #[test]
    fn an_invalid_variable_is_rejected_with_a_remedy_and_without_its_value() {
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
