//! What all doors share on one listener: request ids, bounded bodies, health, and a panic that stays one request's.

use std::{
    any::Any,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{
        Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{ACCEPT, RETRY_AFTER},
        request::Parts,
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::{sync::watch, time::timeout};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use utoipa::openapi::{self as documented, RefOr};

use crate::{
    api,
    auth::{Authenticator, Signed, is_local},
    console, dcs,
    fleet::{Fleet, new_id},
    iam, openapi,
    task::Tasks,
    tls::PeerAddress,
    units::whole_seconds,
};

/// Largest body that any operation takes.
const MAX_BODY: usize = 1024 * 1024;
/// How long a body may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Identifies a request in answers and logs.
#[derive(Debug, Clone, Default)]
pub struct RequestId(pub String);

/// Where a request comes from; as far as it is known, which it is wherever keysweep listens itself.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// The peer of a request.
    pub fn of(extensions: &Extensions) -> IpAddr {
        extensions.get::<Self>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0)
    }
}

/// What is looked at of a request to find out who calls.
pub fn signed<'a>(parts: &'a Parts, body: &'a [u8], repeatable: bool) -> Signed<'a> {
    let Parts { method, uri, headers, extensions, .. } = parts;
    Signed { method, uri, headers, body, peer: Peer::of(extensions), repeatable }
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is larger than 1 MiB.
    TooLarge,
    /// The connection broke, or too little came of it in 30 s.
    Broken,
}

/// What a door may answer with other than what was asked for, for the document: all of it in one shape.
pub fn refusals(schema: &str, statuses: &[u16]) -> BTreeMap<String, RefOr<documented::Response>> {
    let described = |status: &u16| {
        let reason = StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
        let body = documented::Content::new(Some(documented::Ref::from_schema_name(schema)));
        let response = documented::ResponseBuilder::new()
            .description(reason.unwrap_or_default())
            .content("application/json", body);
        let response = match *status == StatusCode::TOO_MANY_REQUESTS {
            true => response.header("Retry-After", whole_number("Seconds after which it is good to try again")),
            false => response,
        };
        (status.to_string(), response.build().into())
    };
    statuses.iter().map(described).collect()
}

fn whole_number(description: &str) -> documented::Header {
    let whole =
        documented::ObjectBuilder::new().schema_type(documented::schema::Type::Integer).minimum(Some(1)).build();
    documented::HeaderBuilder::new().schema(Some(whole)).description(Some(description)).build()
}

/// The same answer, with the time after which it is good to ask again where there is one.
pub fn retry_after(wait: Option<Duration>, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    if let Some(wait) = wait {
        response.headers_mut().insert(RETRY_AFTER, whole_seconds(wait).into());
    }
    response
}

/// Everything that this process serves on its API listener.
///
/// `secure`: whether the listener speaks TLS.
pub fn router(
    fleet: Fleet,
    tasks: Tasks,
    auth: Authenticator,
    shutdown: watch::Receiver<bool>,
    secure: bool,
) -> Router {
    let console = console::Door { fleet: fleet.clone(), tasks: tasks.clone(), auth: auth.clone(), secure };
    let required = auth.is_required();
    let router = Router::new()
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(ready).with_state(tasks.clone()))
        .route("/openapi.json", get(|| async { Json(openapi::document()) }))
        .merge(console::router(console))
        .merge(dcs::router(dcs::Door { fleet: fleet.clone(), tasks: tasks.clone(), auth: auth.clone() }))
        .merge(iam::router(iam::Door { fleet: fleet.clone(), auth: auth.clone() }))
        .merge(api::router(api::Door { fleet, tasks, auth, shutdown }))
        .fallback(no_url)
        .method_not_allowed_fallback(no_method);
    let router = if required { router } else { router.layer(middleware::from_fn(only_local)) };
    router.layer(CatchPanicLayer::custom(after_panic)).layer(middleware::from_fn(identify))
}

/// Reads a body whole, up to the limit.
pub async fn read_body(body: Body) -> Result<Bytes, BodyError> {
    read_within(BODY_PATIENCE, body).await
}

async fn read_within(patience: Duration, body: Body) -> Result<Bytes, BodyError> {
    let read = timeout(patience, to_bytes(body, MAX_BODY)).await.map_err(|_| BodyError::Broken)?;
    read.map_err(|error| {
        let too_large =
            std::error::Error::source(&error).is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
        if too_large { BodyError::TooLarge } else { BodyError::Broken }
    })
}

async fn ready(State(tasks): State<Tasks>) -> Response {
    match tasks.ready().await {
        Ok(()) => Json(json!({ "status": "ready" })).into_response(),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unready", "reason": error.to_string() })))
                .into_response()
        }
    }
}

/// Gives every request an id, every answer that id, and the log one line.
async fn identify(mut request: Request, next: Next) -> Response {
    let id = RequestId(new_id());
    request.extensions_mut().insert(id.clone());
    if let Some(ConnectInfo(PeerAddress(address))) = request.extensions().get::<ConnectInfo<PeerAddress>>().copied() {
        // One that speaks IPv4 to an IPv6 listener is still the same one.
        request.extensions_mut().insert(Peer(address.ip().to_canonical()));
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begun = std::time::Instant::now();
    // What is logged on the way carries the id, too.
    let span = tracing::info_span!("request", request_id = id.0);
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let (status, elapsed_ms) = (response.status(), begun.elapsed().as_millis() as u64);
    let (code, id) = (status.as_u16(), id.0);
    if status.is_server_error() {
        tracing::error!(request_id = id, %method, path, status = code, elapsed_ms, "request failed");
    } else if status.is_client_error() {
        tracing::info!(request_id = id, %method, path, status = code, elapsed_ms, "request refused");
    } else {
        tracing::debug!(request_id = id, %method, path, status = code, elapsed_ms, "request");
    }
    response
}

/// Lets nothing through but what means this machine and comes from it.
async fn only_local(request: Request, next: Next) -> Response {
    if is_local(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    match shape(request.uri().path()) {
        Shape::Console => console::not_local(),
        Shape::Own => api::not_local().into_response(),
        Shape::Iam => iam::not_local().into_response(),
        Shape::Dcs => dcs::not_local().into_response(),
    }
}

/// Whose shape a refusal has where no handler is found.
enum Shape {
    Console,
    Own,
    Iam,
    Dcs,
}

fn shape(path: &str) -> Shape {
    match path {
        path if path == "/console" || path.starts_with("/console/") => Shape::Console,
        path if path.starts_with("/api/") => Shape::Own,
        path if path.starts_with("/v3/") => Shape::Iam,
        _ => Shape::Dcs,
    }
}

async fn no_url(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    // Somebody who types the address into a browser looks for the console; to a client of the API there is nothing here.
    let wants_page = |accept: &HeaderValue| accept.to_str().is_ok_and(|accept| accept.contains("text/html"));
    if method == Method::GET && uri.path() == "/" && headers.get(ACCEPT).is_some_and(wants_page) {
        return console::front_door();
    }
    match shape(uri.path()) {
        Shape::Console => console::no_url(),
        Shape::Own => api::no_url().into_response(),
        Shape::Iam => iam::no_url().into_response(),
        Shape::Dcs => dcs::no_url().into_response(),
    }
}

async fn no_method(uri: Uri) -> Response {
    match shape(uri.path()) {
        Shape::Console => console::no_method(),
        Shape::Own => api::no_method().into_response(),
        Shape::Iam => iam::no_method().into_response(),
        Shape::Dcs => dcs::no_method().into_response(),
    }
}

/// A handler that panics is our fault, told in the shape that clients read; the panic hook has logged it.
fn after_panic(_: Box<dyn Any + Send>) -> Response {
    dcs::internal().into_response()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_end_is_not_waited_for() {
        let half = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]).chain(stream::pending());
        let read = read_within(Duration::from_millis(50), Body::from_stream(half)).await;
        assert_eq!(read, Err(BodyError::Broken));
        assert_eq!(read_body(Body::from("{}")).await, Ok(Bytes::from_static(b"{}")));
    }
}
