//! The two cookies: one for who has signed in, one for forms before that.

use axum::http::{HeaderMap, HeaderValue, header::COOKIE};

use crate::fleet::TOKEN_LIFE;

const SESSION: &str = "keysweep_session";
const VISIT: &str = "keysweep_visit";

/// What a browser has sent.
#[derive(Default)]
pub(super) struct Cookies {
    /// Proves who has signed in.
    pub(super) session: Option<String>,
    /// Ties forms to a browser that nobody has signed in with.
    pub(super) visit: Option<String>,
}

impl Cookies {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        for (name, value) in lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('=')) {
            match name {
                SESSION => found.session = Some(value.to_owned()).filter(|value| !value.is_empty()),
                VISIT => found.visit = Some(value.to_owned()).filter(|value| !value.is_empty()),
                _ => {}
            }
        }
        found
    }
}

/// Lax and not Strict, so that a link from elsewhere leads to its page; forms are protected by their token.
fn cookie(name: &str, value: &str, seconds: u64, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(super) fn session(session: &str, secure: bool) -> Option<HeaderValue> {
    cookie(SESSION, session, TOKEN_LIFE.as_secs(), secure)
}

pub(super) fn no_session(secure: bool) -> Option<HeaderValue> {
    cookie(SESSION, "", 0, secure)
}

pub(super) fn visit(visit: &str, secure: bool) -> Option<HeaderValue> {
    cookie(VISIT, visit, TOKEN_LIFE.as_secs(), secure)
}
