//! The two cookies: one for a session, one for forms before the sign-in. Browsers send a cookie to every port of a host, so
//! the port is part of its name: otherwise two services on one host would end each other's sessions.

use axum::http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, HOST},
    uri::Authority,
};

use crate::identity::TOKEN_LIFE;

const SESSION: &str = "keysweep_session";
const VISIT: &str = "keysweep_visit";

/// The cookies of a request.
#[derive(Default)]
pub(super) struct Cookies {
    /// The session.
    pub(super) session: Option<String>,
    /// Ties forms to a browser without a session.
    pub(super) visit: Option<String>,
}

impl Cookies {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let (session, visit) = (name(SESSION, headers), name(VISIT, headers));
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        for (name, value) in lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('=')) {
            let value = Some(value.to_owned()).filter(|value| !value.is_empty());
            match name {
                _ if name == session => found.session = value,
                _ if name == visit => found.visit = value,
                _ => {}
            }
        }
        found
    }
}

/// Returns the name of a cookie at the address that the browser requested.
fn name(name: &str, headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    host.and_then(|host| host.port_u16()).map_or_else(|| name.to_owned(), |port| format!("{name}_{port}"))
}

/// Makes a cookie. SameSite is Lax and not Strict, so that links from other sites work; CSRF tokens protect forms.
fn cookie(kind: &str, value: &str, seconds: u64, headers: &HeaderMap, secure: bool) -> Option<HeaderValue> {
    let (name, secure) = (name(kind, headers), if secure { "; Secure" } else { "" });
    let text = format!("{name}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Makes a cookie that holds a session. `headers` are those of the request.
pub(super) fn session(session: &str, headers: &HeaderMap, secure: bool) -> Option<HeaderValue> {
    cookie(SESSION, session, TOKEN_LIFE.as_secs(), headers, secure)
}

/// Makes a cookie that removes the session.
pub(super) fn no_session(headers: &HeaderMap, secure: bool) -> Option<HeaderValue> {
    cookie(SESSION, "", 0, headers, secure)
}

/// Makes a cookie that ties forms to a browser.
pub(super) fn visit(visit: &str, headers: &HeaderMap, secure: bool) -> Option<HeaderValue> {
    cookie(VISIT, visit, TOKEN_LIFE.as_secs(), headers, secure)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::another_port("a:7081", "keysweep_session_7080=x", None)]
    #[case::no_port("a", "keysweep_session_7080=x", None)]
    #[case::its_own("a:7080", "keysweep_session_7081=y; keysweep_session_7080=x", Some("x"))]
    #[case::its_own_without_a_port("a", "keysweep_session_7080=y; keysweep_session=x", Some("x"))]
    #[case::a_version_6_address("[::1]:7080", "keysweep_session_7080=x", Some("x"))]
    fn services_on_one_host_have_separate_sessions(
        #[case] host: &'static str,
        #[case] sent: &'static str,
        #[case] session: Option<&str>,
    ) {
        let pairs = [(HOST, HeaderValue::from_static(host)), (COOKIE, HeaderValue::from_static(sent))];
        assert_eq!(Cookies::of(&pairs.into_iter().collect()).session.as_deref(), session);
    }
}
