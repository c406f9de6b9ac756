//! The HTTP service: four API surfaces on one listener, health probes, and a request id and a log line for every request.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, Request, State},
    http::{
        HeaderName, HeaderValue, StatusCode, Version,
        header::{ACCEPT, CONTENT_TYPE, HOST, STRICT_TRANSPORT_SECURITY},
    },
    middleware::{self, Next, map_response},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::sync::watch;
use tower::ServiceExt;
use tracing::Instrument;

use crate::{
    api::{self, ApiError, ApiState, Streams},
    auth::Authenticator,
    console::{self, ConsoleError, ConsoleState},
    dcs::{self, DcsError, DcsState},
    hold::Holds,
    iam::{self, CatalogSettings, IamError, IamState},
    identity::Identity,
    instances::Instances,
    openapi,
    proxies::TrustedProxies,
    random::new_id,
    request::{ForwardedHost, Peer, PeerAddress, RequestId},
    surface::{complete, retry_after},
    task::Tasks,
};

/// How long a client waits before it tries again when all connections are taken.
const BUSY_DELAY: Duration = Duration::from_secs(5);
/// The OpenAPI document. Building and writing it takes milliseconds, which no client should cost the service twice.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    serde_json::to_vec(&openapi::document()).expect("the document has text for keys, and its tests write it").into()
});
/// Longest path and longest method that the log shows, in characters.
const LOGGED_PATH: usize = 256;
const LOGGED_METHOD: usize = 16;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The four surfaces. Each answers everything below its paths, in its own error shape.
#[derive(Clone)]
struct Surfaces {
    dcs: Router,
    api: Router,
    iam: Router,
    console: Router,
}

impl Surfaces {
    /// Completes the routes of each surface. `local_only`: whether to refuse requests that are not of this machine.
    fn new(dcs: Router, api: Router, iam: Router, console: Router, local_only: bool) -> Self {
        let console = complete::<ConsoleError>(console, local_only);
        Self {
            dcs: complete::<DcsError>(dcs, local_only),
            api: complete::<ApiError>(api, local_only),
            iam: complete::<IamError>(iam, local_only),
            console: console.layer(map_response(|answer: Response| async { console::security_headers(answer) })),
        }
    }

    /// Hands a request to the surface that its path belongs to. A path of no surface belongs to the DCS API, whose
    /// unmodified clients read no other error shape.
    async fn dispatch(State(surfaces): State<Self>, request: Request) -> Response {
        let surface = match request.uri().path() {
            path if path == "/console" || path.starts_with("/console/") => surfaces.console,
            path if path.starts_with("/api/") => surfaces.api,
            path if path == "/v3" || path.starts_with("/v3/") => surfaces.iam,
            _ => surfaces.dcs,
        };
        surface.oneshot(request).await.into_response()
    }
}

/// How clients reach the API listener.
#[derive(Debug, Clone)]
pub struct Exposure {
    /// Whether the listener speaks TLS.
    pub secure: bool,
    /// How clients name and reach the service.
    pub catalog: CatalogSettings,
    /// The proxies whose word is taken for the address and the host of a client.
    pub proxies: TrustedProxies,
}

/// Returns everything that this process serves on its API listener.
pub fn router(
    identity: Identity,
    instances: Instances,
    tasks: Tasks,
    holds: Holds,
    auth: Authenticator,
    shutdown: watch::Receiver<bool>,
    Exposure { secure, catalog, proxies }: Exposure,
) -> Router {
    let local_only = !auth.is_required();
    let iam = IamState { identity: identity.clone(), auth: auth.clone(), catalog, secure };
    let others = Router::new()
        .route("/", get(root).with_state(iam.clone()))
        .merge(probes(tasks.clone()))
        .route("/openapi.json", get(|| async { openapi_document() }));
    let dcs = dcs::router(DcsState { instances: instances.clone(), tasks: tasks.clone(), auth: auth.clone() });
    let console = console::router(ConsoleState {
        identity: identity.clone(),
        instances: instances.clone(),
        tasks: tasks.clone(),
        holds: holds.clone(),
        auth: auth.clone(),
        secure,
    });
    let api = api::router(ApiState { identity, instances, tasks, holds, auth, shutdown, streams: Streams::default() });
    let surfaces = Surfaces::new(dcs.merge(others), api, iam::router(iam), console, local_only);
    Router::new()
        .fallback(Surfaces::dispatch)
        .with_state(surfaces)
        .layer(middleware::from_fn_with_state(proxies, identify))
        .layer(map_response(move |response: Response| async move { with_strict_transport(secure, response) }))
}

/// Tells browsers that have come by TLS to come by nothing else for a year.
fn with_strict_transport(secure: bool, mut response: Response) -> Response {
    if secure {
        let year = HeaderValue::from_static("max-age=31536000");
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, year);
    }
    response
}

/// Returns the OpenAPI document.
fn openapi_document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// Returns the health probes.
pub fn probes(tasks: Tasks) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(ready).with_state(tasks))
}

/// Returns what is served while every connection to the API is taken: the health probes. Other requests have to wait.
/// `secure`: whether the listener speaks TLS.
pub fn reserved(tasks: Tasks, local_only: bool, secure: bool) -> Router {
    let busy = || async {
        let body = Json(json!({ "status": "busy", "reason": "all connections are taken; try again" }));
        retry_after(Some(BUSY_DELAY), (StatusCode::SERVICE_UNAVAILABLE, body))
    };
    let served = complete::<DcsError>(probes(tasks), local_only);
    let other = Router::new().fallback(busy);
    Router::new()
        .fallback(move |request: Request| {
            let router =
                if matches!(request.uri().path(), "/healthz" | "/readyz") { served.clone() } else { other.clone() };
            async move { router.oneshot(request).await.into_response() }
        })
        .layer(middleware::from_fn_with_state(TrustedProxies::default(), identify))
        .layer(map_response(move |response: Response| async move { with_strict_transport(secure, response) }))
}

/// Redirects browsers to the console, and tells API clients the versions of the identity API.
async fn root(State(iam): State<IamState>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let wants_page = |accept: &HeaderValue| accept.to_str().is_ok_and(|accept| accept.contains("text/html"));
    match parts.headers.get(ACCEPT).is_some_and(wants_page) {
        true => console::entrance(),
        false => iam.versions(&parts),
    }
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

/// Returns a text of a request as the log shows it: one that is longer than every method or path of the API is cut.
fn logged(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Whether a request names its host as HTTP/1.1 requires it: proxies and signatures depend on which one it is.
fn has_one_host(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match hosts.next() {
        None => request.version() < Version::HTTP_11,
        Some(_) => hosts.next().is_none(),
    }
}

/// Gives every request an id, every answer that id, and the log one line per request.
async fn identify(State(proxies): State<TrustedProxies>, mut request: Request, next: Next) -> Response {
    let id = RequestId(new_id());
    request.extensions_mut().insert(id.clone());
    if let Some(ConnectInfo(PeerAddress(address))) = request.extensions().get::<ConnectInfo<PeerAddress>>().copied() {
        let client = proxies.client(address.ip(), request.headers());
        let host = proxies.host(address.ip(), request.headers());
        request.extensions_mut().insert(Peer(client));
        host.map(|host| request.extensions_mut().insert(ForwardedHost(host)));
    }
    let method = logged(request.method().as_str(), LOGGED_METHOD);
    let path = logged(request.uri().path(), LOGGED_PATH);
    let started = Instant::now();
    // Lines that handlers log carry the id as well.
    let span = tracing::info_span!("request", request_id = id.0);
    let mut response = match has_one_host(&request) {
        true => next.run(request).instrument(span).await,
        false => (StatusCode::BAD_REQUEST, "a request of HTTP/1.1 has one Host header\n").into_response(),
    };
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let (status, elapsed_ms) = (response.status(), started.elapsed().as_millis() as u64);
    let (code, id) = (status.as_u16(), id.0);
    if status.is_server_error() {
        tracing::error!(request_id = id, method, path, status = code, elapsed_ms, "request failed");
    } else if status.is_client_error() {
        tracing::info!(request_id = id, method, path, status = code, elapsed_ms, "request refused");
    } else {
        tracing::debug!(request_id = id, method, path, status = code, elapsed_ms, "request");
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::HeaderMap,
    };
    use serde_json::Value;

    use super::*;
    use crate::store::Store;

    /// Sends a GET to surfaces that have one route each, whose handler panics; returns status, headers and body.
    async fn answer_to_a_panic_at(path: &str) -> (u16, HeaderMap, String) {
        async fn panics() -> Response {
            panic!("a handler of the test panics")
        }
        let route = |path: &str| Router::new().route(path, get(panics));
        let (dcs, api, iam, console) =
            (route("/v2/panic"), route("/api/panic"), route("/v3/panic"), route("/console/panic"));
        let surfaces = Surfaces::new(dcs, api, iam, console, false);
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let (parts, body) = Surfaces::dispatch(State(surfaces), request).await.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).expect("text"))
    }

    fn json_of((status, _, body): (u16, HeaderMap, String)) -> (u16, Value) {
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    #[test]
    fn answers_over_tls_tell_browsers_to_come_by_nothing_else() {
        let header = |secure| {
            let answer = with_strict_transport(secure, Response::new(Body::empty()));
            answer.headers().get(STRICT_TRANSPORT_SECURITY).cloned()
        };
        assert_eq!(header(true), Some(HeaderValue::from_static("max-age=31536000")));
        assert_eq!(header(false), None, "a proxy may serve the same name without TLS");
    }

    #[tokio::test]
    async fn so_do_refusals_of_requests_without_a_host_and_on_reserved_connections() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open_sqlite(&folder.path().join("keysweep.db")).await.expect("a store");
        let router = reserved(Tasks::new(store), false, true);
        for (host, status) in [(None, 400), (Some("h"), 503)] {
            let mut request = Request::get("/v3").body(Body::empty()).expect("a request");
            host.map(|host| request.headers_mut().insert(HOST, HeaderValue::from_static(host)));
            let answer = router.clone().oneshot(request).await.expect("an answer");
            assert_eq!(answer.status(), status);
            assert!(answer.headers().contains_key(STRICT_TRANSPORT_SECURITY), "{status}");
        }
    }

    #[test]
    fn the_log_cuts_long_paths_and_methods() {
        assert_eq!(
            (logged("/v2/x", LOGGED_PATH), logged("OPTIONS", LOGGED_METHOD)),
            ("/v2/x".into(), "OPTIONS".into())
        );
        let long = "x".repeat(60_000);
        assert_eq!(logged(&format!("/{long}"), LOGGED_PATH).chars().count(), LOGGED_PATH + 1);
        assert_eq!(logged(&long, LOGGED_METHOD).chars().count(), LOGGED_METHOD + 1);
    }

    #[tokio::test]
    async fn the_openapi_document_is_written_once() {
        let bytes = async || to_bytes(openapi_document().into_body(), usize::MAX).await.expect("a document");
        let (first, second) = (bytes().await, bytes().await);
        assert!(first.starts_with(b"{\"openapi\""), "{:?}", &first[..20]);
        assert_eq!(first.as_ptr(), second.as_ptr(), "both answers are the same memory");
    }

    #[tokio::test]
    async fn a_panic_in_the_dcs_api_is_a_dcs_error() {
        let expected =
            json!({ "error_code": "DCS.5000", "error_msg": "Internal service error.", "error_ext_msg": null });
        assert_eq!(json_of(answer_to_a_panic_at("/v2/panic").await), (500, expected));
    }

    #[tokio::test]
    async fn a_panic_in_the_native_api_is_an_error_of_the_native_api() {
        let (status, body) = json_of(answer_to_a_panic_at("/api/panic").await);
        assert_eq!((status, &body["error"]["code"]), (500, &json!("internal")), "{body}");
    }

    #[tokio::test]
    async fn a_panic_in_the_iam_api_is_an_iam_error() {
        let expected = json!({ "error": {
            "message": "Internal service error.", "code": 500, "title": "Internal Server Error",
        } });
        assert_eq!(json_of(answer_to_a_panic_at("/v3/panic").await), (500, expected));
    }

    #[tokio::test]
    async fn a_panic_in_the_console_is_a_page_with_security_headers() {
        let (status, headers, page) = answer_to_a_panic_at("/console/panic").await;
        assert_eq!(status, 500);
        assert!(page.contains("<!doctype html>") && page.contains("X-Request-Id"), "{page}");
        assert!(headers.contains_key("content-security-policy"), "{headers:?}");
    }
}
