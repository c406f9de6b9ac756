//! Protection against other sites: a CSRF token in every form, a check of the origin of every form, and security headers on
//! every answer.

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
            X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::Response,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{
    ConsoleState,
    cookies::{self, Cookies},
    error::ConsoleError,
    fields::Fields,
};
use crate::random::new_id;

/// The form field that holds the CSRF token.
const TOKEN: &str = "form_token";
/// Text that the browser's cookie signs to make the CSRF token.
const PURPOSE: &[u8] = b"keysweep console form";

/// Value of the cookie that a browser's forms are tied to.
#[derive(Clone, Default)]
pub(super) struct FormKey(String);

impl FormKey {
    fn mac(&self) -> Option<Hmac<Sha256>> {
        // An empty key would make a token that any site can compute.
        let mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).ok().filter(|_| !self.0.is_empty())?;
        Some(mac.chain_update(PURPOSE))
    }

    /// Returns the token that the browser must send with a form.
    pub(super) fn token(&self) -> String {
        self.mac().map(|mac| hex::encode(mac.finalize().into_bytes())).unwrap_or_default()
    }

    fn is_token(&self, token: &str) -> bool {
        let Ok(token) = hex::decode(token) else { return false };
        self.mac().is_some_and(|mac| mac.verify_slice(&token).is_ok())
    }
}

/// Parses a form if it comes from one of our own pages.
pub(super) fn verified_form(headers: &HeaderMap, key: &FormKey, body: &[u8]) -> Result<Fields, ConsoleError> {
    let form = Fields::parse(body);
    match is_same_origin(headers) && key.is_token(form.text(TOKEN)) {
        true => Ok(form),
        false => Err(ConsoleError::Stale),
    }
}

/// Returns whether a form comes from our own origin. Browsers send the origin and pages cannot change it; other clients send
/// none and are accepted.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text(&HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(&ORIGIN) else { return true };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_some() && authority == text(&HOST)
}

/// Gives every browser a cookie for its forms, and keeps caches from storing pages.
pub(super) async fn protect(State(state): State<ConsoleState>, mut request: Request, next: Next) -> Response {
    let cookies = Cookies::of(request.headers());
    let (key, fresh) = match cookies.session.or(cookies.visit) {
        Some(key) => (key, false),
        None => (new_id(), true),
    };
    // The cookie depends on the request, which the handler consumes.
    let cookie = fresh.then(|| cookies::visit(&key, request.headers(), is_secure(&state, request.headers()))).flatten();
    request.extensions_mut().insert(FormKey(key));
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_tool(&[("host", "a:1")], true)]
    #[case::our_own_page(&[("host", "a:1"), ("origin", "http://a:1")], true)]
    #[case::behind_a_proxy(&[("host", "inner:1"), ("origin", "https://outer"), ("sec-fetch-site", "same-origin")], true)]
    #[case::another_site(&[("host", "a:1"), ("origin", "http://b:1")], false)]
    #[case::another_port(&[("host", "a:1"), ("origin", "http://a:2")], false)]
    #[case::hidden(&[("host", "a:1"), ("origin", "null")], false)]
    #[case::a_neighbour(&[("host", "a:1"), ("origin", "http://a:1"), ("sec-fetch-site", "same-site")], false)]
    fn only_forms_of_our_own_pages_are_accepted(#[case] headers: &[(&'static str, &'static str)], #[case] good: bool) {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        assert_eq!(is_same_origin(&headers.collect()), good);
    }

    #[test]
    fn a_token_is_valid_for_its_own_browser_only_and_never_without_a_cookie() {
        let (ours, theirs, none) = (FormKey("a".into()), FormKey("b".into()), FormKey::default());
        assert!(ours.is_token(&ours.token()));
        for (key, token) in
            [(&ours, theirs.token()), (&ours, String::new()), (&none, none.token()), (&ours, "zz".into())]
        {
            assert!(!key.is_token(&token), "{token}");
        }
    }
}
