//! The forms of a page: a CSRF token in each, and a check of the token and the origin when it is sent.

use axum::http::{
    HeaderMap, HeaderName,
    header::{HOST, ORIGIN},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{error::ConsoleError, fields::Fields};

/// The form field that holds the CSRF token.
const TOKEN: &str = "form_token";
/// Text that the browser's cookie signs to make the CSRF token.
const PURPOSE: &[u8] = b"keysweep console form";

/// Value of the cookie that a browser's forms are tied to.
#[derive(Clone, Default)]
pub(super) struct FormKey(String);

impl FormKey {
    /// Returns the key of a browser with this cookie.
    pub(super) fn new(cookie: String) -> Self {
        Self(cookie)
    }

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

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
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
