//! What every API surface does alike: it answers unknown paths, unknown methods, foreign requests and panics in its own
//! error shape, says when to retry, and documents its errors.

use std::{any::Any, collections::BTreeMap, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header::RETRY_AFTER},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::{self as documented, RefOr};

use crate::{answers, auth::is_local, request::Peer, units::whole_seconds};

/// How long a client waits before it tries again what the database could not do.
pub const DATABASE_DELAY: Duration = Duration::from_secs(1);

/// Why no handler answers a request. Each surface turns it into an error of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unhandled {
    /// No route has this path.
    UnknownPath,
    /// The path has no such method.
    UnknownMethod,
    /// Authentication is off, and the request does not come from this machine to this machine.
    NotLocal,
    /// The answers that other requests wait for take all memory that there is for them.
    NoMemory,
    /// The handler panicked. The panic hook has logged it.
    Panicked,
}

/// Completes the routes of a surface whose errors are `E`, so that every answer has the surface's shape.
///
/// `local_only`: whether to refuse requests that are not of this machine, as a service without authentication must.
pub fn complete<E>(routes: Router, local_only: bool) -> Router
where
    E: From<Unhandled> + IntoResponse + 'static,
{
    let router = routes
        .fallback(|| async { E::from(Unhandled::UnknownPath).into_response() })
        .method_not_allowed_fallback(|| async { E::from(Unhandled::UnknownMethod).into_response() });
    let router = if local_only { router.layer(middleware::from_fn(require_local::<E>)) } else { router };
    let router = router.layer(middleware::from_fn(count_answer::<E>));
    router.layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| E::from(Unhandled::Panicked).into_response()))
}

async fn require_local<E>(request: Request, next: Next) -> Response
where
    E: From<Unhandled> + IntoResponse,
{
    match is_local(request.uri(), request.headers()) {
        true => next.run(request).await,
        false => E::from(Unhandled::NotLocal).into_response(),
    }
}

/// Counts the memory of an answer until its client has it.
async fn count_answer<E>(request: Request, next: Next) -> Response
where
    E: From<Unhandled> + IntoResponse,
{
    // A change that was made is not answered as if it was not.
    let (client, is_safe) = (Peer::of(request.extensions()), request.method().is_safe());
    let answer = next.run(request).await;
    match is_safe {
        true => answers::counted(answer, client).unwrap_or_else(|| E::from(Unhandled::NoMemory).into_response()),
        false => answer,
    }
}

/// Adds `Retry-After` to an answer, in whole seconds, if there is a time to wait.
pub fn retry_after(wait: Option<Duration>, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    if let Some(wait) = wait {
        response.headers_mut().insert(RETRY_AFTER, whole_seconds(wait).into());
    }
    response
}

/// Returns the error responses of an operation for the OpenAPI document, all with the same schema.
pub fn error_responses(schema: &str, statuses: &[u16]) -> BTreeMap<String, RefOr<documented::Response>> {
    let described = |status: &u16| {
        let reason = StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
        let body = documented::Content::new(Some(documented::Ref::from_schema_name(schema)));
        let response = documented::ResponseBuilder::new()
            .description(reason.unwrap_or_default())
            .content("application/json", body);
        let response = match matches!(*status, 429 | 503) {
            true => response.header("Retry-After", whole_number("Seconds to wait before trying again")),
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
