//! What keeps other sites out of the console: the token in every form, the origin of every request, and what browsers are
//! told with every answer.

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
    Door,
    cookies::{self, Cookies},
    error::ConsoleError,
    fields::Fields,
};
use crate::fleet::new_id;

/// The field of every form that holds its token.
const TOKEN: &str = "form_token";
/// What the token of a form is made of beside the browser's cookie.
const PURPOSE: &[u8] = b"keysweep console form";

/// The cookie that this browser's forms are tied to.
#[derive(Clone, Default)]
pub(super) struct FormKey(String);

impl FormKey {
    fn mac(&self) -> Option<Hmac<Sha256>> {
        // An empty key is one that everybody knows.
        let mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).ok().filter(|_| !self.0.is_empty())?;
        Some(mac.chain_update(PURPOSE))
    }

    /// What the browser must send with a form.
    pub(super) fn token(&self) -> String {
        self.mac().map(|mac| hex::encode(mac.finalize().into_bytes())).unwrap_or_default()
    }

    fn is_token(&self, token: &str) -> bool {
        let Ok(token) = hex::decode(token) else { return false };
        self.mac().is_some_and(|mac| mac.verify_slice(&token).is_ok())
    }
}

/// Reads a form that one of our own pages has sent.
pub(super) fn open_form(headers: &HeaderMap, key: &FormKey, body: &[u8]) -> Result<Fields, ConsoleError> {
    let form = Fields::parse(body);
    match is_from_us(headers) && key.is_token(form.text(TOKEN)) {
        true => Ok(form),
        false => Err(ConsoleError::Stale),
    }
}

/// Browsers say where a request comes from, and pages cannot make them say otherwise. What is no browser says nothing.
fn is_from_us(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text(&HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(&ORIGIN) else { return true };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_some() && authority == text(&HOST)
}

/// Gives every browser a cookie for its forms, and every answer the headers that shield it.
pub(super) async fn keep(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let cookies = Cookies::of(request.headers());
    let (key, fresh) = match cookies.session.or(cookies.visit) {
        Some(key) => (key, false),
        None => (new_id(), true),
    };
    // Made now: the request goes on, and is gone when it is answered.
    let cookie = fresh.then(|| cookies::visit(&key, request.headers(), is_secure(&door, request.headers()))).flatten();
    request.extensions_mut().insert(FormKey(key));
    let mut response = shield(next.run(request).await);
    let is_page = !response.headers().contains_key(CACHE_CONTROL);
    if is_page {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Some(cookie) = cookie.filter(|_| is_page) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Whether the browser speaks TLS: to us, or to the proxy in front. A lie about that harms only who tells it.
pub(super) fn is_secure(door: &Door, headers: &HeaderMap) -> bool {
    door.secure || headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https")
}

/// Nothing is loaded from elsewhere, nothing runs that is not in the binary, and nobody shows these pages in theirs.
pub(super) fn shield(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Not no-referrer: browsers would send forms with the origin null.
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
    fn a_form_is_taken_from_our_own_pages_only(#[case] headers: &[(&'static str, &'static str)], #[case] good: bool) {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        assert_eq!(is_from_us(&headers.collect()), good);
    }

    #[test]
    fn a_token_is_good_for_its_own_browser_and_none_where_there_is_no_cookie() {
        let (ours, theirs, none) = (FormKey("a".into()), FormKey("b".into()), FormKey::default());
        assert!(ours.is_token(&ours.token()));
        for (key, token) in
            [(&ours, theirs.token()), (&ours, String::new()), (&none, none.token()), (&ours, "zz".into())]
        {
            assert!(!key.is_token(&token), "{token}");
        }
    }
}
