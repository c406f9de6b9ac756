//! SDK-HMAC-SHA256, the request signature of Huawei Cloud's SDKs: verification. Pure functions of request, secret and time.

use std::time::Duration;

use axum::http::HeaderMap;
use hmac::Mac;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

pub use super::canonical::{ALGORITHM, SignedRequest};
use super::canonical::{DATE_FORM, DATE_HEADER, keyed, string_to_sign};
pub use super::signature_error::SignatureError;

/// Largest difference between the client's clock and ours, in either direction.
pub const CLOCK_WINDOW: Duration = Duration::from_secs(15 * 60);
/// Longest access key that is accepted, in bytes. Failures are counted by access key, so its length bounds their memory.
const LONGEST_ACCESS: usize = 64;

/// A parsed Authorization header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The access key.
    pub access: String,
    /// Names of the signed headers, in the client's order.
    pub signed_headers: Vec<String>,
    signature: Vec<u8>,
}

impl Authorization {
    /// Parses an Authorization header of this scheme.
    pub fn parse(header: &str) -> Result<Self, SignatureError> {
        let (algorithm, fields) = header.split_once(' ').unwrap_or((header, ""));
        match algorithm {
            ALGORITHM if fields.trim_start().starts_with("Credential=") => return Err(SignatureError::Algorithm),
            ALGORITHM => {}
            other if other.contains("-HMAC-") => return Err(SignatureError::Algorithm),
            _ => return Err(SignatureError::Malformed),
        }
        let field = |name: &str| {
            let mut values = fields.split(',').filter_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
            // A repeated field is ambiguous: a proxy in front may have checked the other value.
            values.next().filter(|value| !value.is_empty() && values.next().is_none()).ok_or(SignatureError::Malformed)
        };
        let signature = hex::decode(field("Signature")?).map_err(|_| SignatureError::Malformed)?;
        let signed_headers = field("SignedHeaders")?.split(';').map(str::to_owned).collect();
        let access = field("Access")?;
        if access.len() > LONGEST_ACCESS {
            return Err(SignatureError::Malformed);
        }
        Ok(Self { access: access.to_owned(), signed_headers, signature })
    }

    /// Checks that the date is signed, and within the clock window.
    pub fn check_date(&self, headers: &HeaderMap, now: Timestamp) -> Result<(), SignatureError> {
        self.date(headers, now).map(drop)
    }

    /// Checks everything that needs no secret, so that the result reveals nothing about the key.
    pub fn prepare(&self, request: SignedRequest<'_>, now: Timestamp) -> Result<Prepared, SignatureError> {
        let (date, signed_at) = self.date(request.headers, now)?;
        let to_sign = string_to_sign(request, &self.signed_headers, date)?;
        Ok(Prepared { to_sign, signature: self.signature.clone(), remembered_until: signed_at + 2 * CLOCK_WINDOW })
    }

    fn date<'a>(&self, headers: &'a HeaderMap, now: Timestamp) -> Result<(&'a str, Timestamp), SignatureError> {
        if !self.signed_headers.iter().any(|name| name.eq_ignore_ascii_case(DATE_HEADER)) {
            return Err(SignatureError::Date);
        }
        let text = headers.get(DATE_HEADER).and_then(|value| value.to_str().ok()).ok_or(SignatureError::Date)?;
        let signed_at = DateTime::strptime(DATE_FORM, text).map_err(|_| SignatureError::Date)?;
        let signed_at = TimeZone::UTC.to_timestamp(signed_at).map_err(|_| SignatureError::Date)?;
        match signed_at.duration_since(now).unsigned_abs() > CLOCK_WINDOW {
            true => Err(SignatureError::Expired),
            false => Ok((text, signed_at)),
        }
    }
}

/// A request whose signature remains to be verified.
#[derive(Debug, Clone)]
pub struct Prepared {
    to_sign: String,
    /// The signature in the request.
    pub signature: Vec<u8>,
    /// Until when the signature is remembered, so that it is taken once: for a clock window after it has become too old here,
    /// since the clock of another replica may be that far behind.
    pub remembered_until: Timestamp,
}

impl Prepared {
    /// Verifies that the request was signed with `secret`.
    pub fn verify(&self, secret: &str) -> Result<(), SignatureError> {
        let mac = keyed(secret, &self.to_sign)?;
        // Constant time: its duration must not reveal how many bytes match.
        mac.verify_slice(&self.signature).map_err(|_| SignatureError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue, Method};
    use hmac::{Hmac, KeyInit};
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    const SECRET: &str = "the-secret-of-the-test";
    const DATE: &str = "20261124T083000Z";

    fn now() -> Timestamp {
        "2026-11-24T08:31:00Z".parse().expect("a time")
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    /// Signs as the documentation describes it, independently of the code above.
    fn authorization(canonical: &str, signed_headers: &str) -> String {
        let to_sign = format!("SDK-HMAC-SHA256\n{DATE}\n{}", hex::encode(Sha256::digest(canonical)));
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length will do");
        mac.update(to_sign.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        format!("SDK-HMAC-SHA256 Access=AK, SignedHeaders={signed_headers}, Signature={signature}")
    }

    fn verify(header: &str, request: SignedRequest<'_>) -> Result<(), SignatureError> {
        Authorization::parse(header)?.prepare(request, now())?.verify(SECRET)
    }

    #[test]
    fn a_request_signed_as_documented_is_accepted() {
        let body = br#"{"a":1}"#;
        let canonical = format!(
            "PUT\n/v2/p%20q/x/\na=1&a=2&b=&c=%2F%2B\nhost:dcs.example\nx-sdk-date:{DATE}\n\nhost;x-sdk-date\n{}",
            hex::encode(Sha256::digest(body))
        );
        let headers = headers(&[("host", " dcs.example "), ("x-sdk-date", DATE), ("x-project-id", "added later")]);
        let request = SignedRequest {
            method: &Method::PUT,
            path: "/v2/p%20q/x",
            query: "c=/%2B&a=2&b&a=1",
            headers: &headers,
            body,
        };
        assert_eq!(verify(&authorization(&canonical, "host;x-sdk-date"), request), Ok(()));
    }

    fn minimal(headers: &HeaderMap) -> SignedRequest<'_> {
        SignedRequest { method: &Method::GET, path: "/v2/x", query: "", headers, body: b"" }
    }

    fn minimal_canonical(body_hash: &str) -> String {
        format!("GET\n/v2/x/\n\nx-sdk-date:{DATE}\n\nx-sdk-date\n{body_hash}")
    }

    #[test]
    fn a_signature_is_remembered_for_as_long_as_any_replica_may_take_it() {
        let headers = headers(&[("x-sdk-date", DATE)]);
        let header = authorization(&minimal_canonical(&hex::encode(Sha256::digest(b""))), "x-sdk-date");
        let authorization = Authorization::parse(&header).expect("well formed");
        let prepared = authorization.prepare(minimal(&headers), "2026-11-24T08:30:00Z".parse().expect("a time"));
        // A replica whose clock is 15 minutes behind takes it until 09:00 by the clock of the others.
        let until = prepared.expect("well formed").remembered_until;
        assert_eq!(until, "2026-11-24T09:00:00Z".parse::<Timestamp>().expect("a time"));
    }

    #[test]
    fn the_clock_window_is_fifteen_minutes_either_way() {
        let headers = headers(&[("x-sdk-date", DATE)]);
        let header = authorization(&minimal_canonical(&hex::encode(Sha256::digest(b""))), "x-sdk-date");
        let authorization = Authorization::parse(&header).expect("well formed");
        for (now, verdict) in [
            ("2026-11-24T08:45:00Z", Ok(())),
            ("2026-11-24T08:15:00Z", Ok(())),
            ("2026-11-24T08:45:01Z", Err(SignatureError::Expired)),
            ("2026-11-24T08:14:59Z", Err(SignatureError::Expired)),
        ] {
            assert_eq!(
                authorization.prepare(minimal(&headers), now.parse().expect("a time")).and_then(|it| it.verify(SECRET)),
                verdict,
                "{now}"
            );
        }
    }

    #[test]
    fn an_unsigned_date_is_refused() {
        let headers = headers(&[("x-sdk-date", DATE), ("host", "h")]);
        let canonical = format!("GET\n/v2/x/\n\nhost:h\n\nhost\n{}", hex::encode(Sha256::digest(b"")));
        assert_eq!(verify(&authorization(&canonical, "host"), minimal(&headers)), Err(SignatureError::Date));
    }

    #[test]
    fn a_signed_header_that_comes_twice_is_refused() {
        let canonical = format!(
            "GET\n/v2/x/\n\nhost:h\nx-sdk-date:{DATE}\n\nhost;x-sdk-date\n{}",
            hex::encode(Sha256::digest(b""))
        );
        let header = authorization(&canonical, "host;x-sdk-date");
        let mut headers = headers(&[("x-sdk-date", DATE), ("host", "h")]);
        assert_eq!(verify(&header, minimal(&headers)), Ok(()));
        headers.append("host", HeaderValue::from_static("other"));
        assert_eq!(verify(&header, minimal(&headers)), Err(SignatureError::RepeatedHeader));
    }

    #[test]
    fn an_unsigned_payload_is_accepted_for_an_empty_body_only() {
        let headers = headers(&[("x-sdk-date", DATE), ("x-sdk-content-sha256", "UNSIGNED-PAYLOAD")]);
        let header = authorization(&minimal_canonical("UNSIGNED-PAYLOAD"), "x-sdk-date");
        assert_eq!(verify(&header, minimal(&headers)), Ok(()));
        let request = SignedRequest { body: b"x", ..minimal(&headers) };
        assert_eq!(verify(&header, request), Err(SignatureError::Body));
    }

    #[test]
    fn malformed_headers_are_refused() {
        for header in [
            "",
            "Bearer abc",
            "SDK-HMAC-SHA256",
            "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date",
            "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date, Signature=xyz",
            "SDK-HMAC-SHA256 Access=, SignedHeaders=x-sdk-date, Signature=00",
            "SDK-HMAC-SHA256 Access=AK, Access=AK2, SignedHeaders=x-sdk-date, Signature=00",
        ] {
            assert_eq!(Authorization::parse(header), Err(SignatureError::Malformed), "{header}");
        }
    }

    #[test]
    fn other_algorithms_are_named_as_unsupported() {
        for algorithm in
            ["SDK-HMAC-SM3 Access=AK", "V11-HMAC-SHA256 Credential=AK/20261124/r/dcs", "AWS4-HMAC-SHA256 C"]
        {
            let header = format!("{algorithm}, SignedHeaders=x-sdk-date, Signature=00");
            assert_eq!(Authorization::parse(&header), Err(SignatureError::Algorithm), "{header}");
        }
        let derived = "SDK-HMAC-SHA256 Credential=AK/20261124/r/dcs, SignedHeaders=x-sdk-date, Signature=00";
        assert_eq!(Authorization::parse(derived), Err(SignatureError::Algorithm));
    }

    #[test]
    fn an_overlong_access_key_is_refused() {
        let parse = |length: usize| {
            let access = "A".repeat(length);
            Authorization::parse(&format!("SDK-HMAC-SHA256 Access={access}, SignedHeaders=x-sdk-date, Signature=00"))
        };
        assert_eq!(parse(64).map(|it| it.access.len()), Ok(64));
        assert_eq!(parse(65), Err(SignatureError::Malformed));
    }

    proptest! {
        #[test]
        fn any_change_of_a_signed_part_is_refused(position in 0usize..64, flip in 1u8..16) {
            let headers = headers(&[("x-sdk-date", DATE)]);
            let header = authorization(&minimal_canonical(&hex::encode(Sha256::digest(b""))), "x-sdk-date");
            prop_assert_eq!(verify(&header, minimal(&headers)), Ok(()));
            let (head, signature) = header.split_at(header.len() - 64);
            let mut digits: Vec<u8> = signature.bytes().collect();
            let value = char::from(digits[position]).to_digit(16).expect("a hex digit") as u8;
            digits[position] = char::from_digit(u32::from(value ^ flip), 16).expect("a hex digit") as u8;
            let changed = format!("{head}{}", String::from_utf8(digits).expect("digits"));
            prop_assert_eq!(verify(&changed, minimal(&headers)), Err(SignatureError::Mismatch));
            for request in [
                SignedRequest { method: &Method::POST, ..minimal(&headers) },
                SignedRequest { path: "/v2/y", ..minimal(&headers) },
                SignedRequest { query: "a", ..minimal(&headers) },
                SignedRequest { body: b"a", ..minimal(&headers) },
            ] {
                prop_assert_eq!(verify(&header, request), Err(SignatureError::Mismatch));
            }
        }

        #[test]
        fn no_header_makes_the_parser_panic(header in "SDK-HMAC-SHA256 [ -~]{0,80}") {
            let _ = Authorization::parse(&header);
        }
    }
}
