//! The host that a signature covers. Most SDKs sign the Host header, which a proxy replaces by its own unless it is told not to:
//! then every signature is bad although the secret is right.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, header::HOST};
use jiff::Timestamp;

use super::{
    Authenticator,
    signature::{Authorization, SignedRequest},
};

/// The header in which a proxy passes the original host on.
const FORWARDED_HOST: &str = "x-forwarded-host";

/// Time between two log lines about hosts: any client can cause one with a signature that is made up.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// When a host was last logged.
#[derive(Debug, Default)]
pub(super) struct HostLog(Mutex<Option<Instant>>);

impl HostLog {
    fn is_due(&self, now: Instant) -> bool {
        let mut logged_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = logged_at.is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL);
        if is_due {
            *logged_at = Some(now);
        }
        is_due
    }
}

/// What the signature of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Made with the secret, for this request.
    Good,
    /// Made with the secret, for this request with another host.
    OtherHost,
    /// Made with another secret, or for another request.
    Bad,
}

impl Authenticator {
    /// Verifies a signature. One for the host of the service's public URL is good, too, and so is one for `forwarded`, the host
    /// that a trusted proxy passes on. Logs a host that does not match.
    pub(super) fn verify(
        &self,
        authorization: &Authorization,
        signed: SignedRequest<'_>,
        forwarded: Option<&HeaderValue>,
        secret: &str,
        now: Timestamp,
    ) -> Verdict {
        let verifies = |headers: &HeaderMap| {
            let prepared = authorization.prepare(SignedRequest { headers, ..signed }, now);
            prepared.and_then(|prepared| prepared.verify(secret)).is_ok()
        };
        if verifies(signed.headers) {
            return Verdict::Good;
        }
        if !authorization.signed_headers.iter().any(|name| name.eq_ignore_ascii_case(HOST.as_str())) {
            return Verdict::Bad;
        }
        let with_host = |host: &HeaderValue| {
            let mut headers = signed.headers.clone();
            headers.insert(HOST, host.clone());
            verifies(&headers)
        };
        let public = self.public_host.as_ref().and_then(|host| HeaderValue::from_str(host).ok());
        if public.as_ref().is_some_and(with_host) || forwarded.is_some_and(with_host) {
            return Verdict::Good;
        }
        let arrived = text(signed.headers.get(HOST));
        match signed.headers.get(FORWARDED_HOST).filter(|host| with_host(host)) {
            Some(forwarded) => {
                let covered = text(Some(forwarded));
                tracing::warn!(
                    "signature covers host {covered}, request arrived with host {arrived}: the proxy must pass the Host \
                     header on, or --trusted-proxies name the proxy"
                );
                Verdict::OtherHost
            }
            None if !self.lockouts.bad_hosts.is_due(Instant::now()) => Verdict::Bad,
            None => {
                tracing::info!(
                    "bad signature: it covers the Host header, and the request arrived with host {arrived}; if that is not \
                     the host that the client called, the proxy must pass the Host header on, or --public-url name it"
                );
                Verdict::Bad
            }
        }
    }
}

/// Returns a header's value for the log, without control characters.
fn text(value: Option<&HeaderValue>) -> String {
    let text = value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default();
    text.chars().filter(|character| !character.is_control()).take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_signatures_that_cover_the_host_are_logged_once_a_minute() {
        let (log, now) = (HostLog::default(), Instant::now());
        let due: Vec<bool> = [0, 1, 59, 60, 61].map(|seconds| log.is_due(now + Duration::from_secs(seconds))).into();
        assert_eq!(due, [true, false, false, true, false]);
    }
}
