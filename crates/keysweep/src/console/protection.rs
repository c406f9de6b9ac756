//! Protection against other sites: a cookie for every browser that its forms are tied to, and security headers on every answer.

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
            X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::Response,
};

use super::{
    ConsoleState,
    cookies::{self, Cookies},
    form_key::FormKey,
};
use crate::random::new_id;

/// Gives every browser a cookie for its forms, and keeps caches from storing pages.
pub(super) async fn protect(State(state): State<ConsoleState>, mut request: Request, next: Next) -> Response {
    let cookies = Cookies::of(request.headers());
    let (key, fresh) = match cookies.session.or(cookies.visit) {
        Some(key) => (key, false),
        None => (new_id(), true),
    };
    // The cookie depends on the request, which the handler consumes.
    let cookie = fresh.then(|| cookies::visit(&key, request.headers(), is_secure(&state, request.headers()))).flatten();
    request.extensions_mut().insert(FormKey::new(key));
    let mut response = next.run(request).await;
    let is_page = !response.headers().contains_key(CACHE_CONTROL);
    if is_page {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Some(cookie) = cookie.filter(|_| is_page) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Returns whether the browser speaks TLS with us or with a proxy in front. A forged header only affects the cookies of the
/// client that sends it.
pub(super) fn is_secure(state: &ConsoleState, headers: &HeaderMap) -> bool {
    state.secure || headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https")
}

/// Adds headers that forbid content from other sites, inline scripts and framing.
pub fn security_headers(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // With no-referrer browsers would send forms with the origin null.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    response
}
