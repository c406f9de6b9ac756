//! SDK-HMAC-SHA256, the request signature of Huawei Cloud's SDKs. Pure: a request and a secret in, a verdict out.
//!
//! The recipe is in the gateway's public documentation ("AK/SK signing and authentication"); what the clients really
//! do with it is noted where it shapes the code.

use std::time::Duration;

use axum::http::{HeaderMap, Method};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// The scheme's name at the head of the Authorization header.
pub const ALGORITHM: &str = "SDK-HMAC-SHA256";
/// How far the client's clock may be off, either way.
pub const CLOCK_WINDOW: Duration = Duration::from_secs(15 * 60);

const DATE_HEADER: &str = "x-sdk-date";
const BODY_HASH_HEADER: &str = "x-sdk-content-sha256";
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is wrong with a signature. The texts go out to the client; none tells what the right one would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is not of the form `SDK-HMAC-SHA256 Access=…, SignedHeaders=…, Signature=…`.
    #[error("the Authorization header is malformed")]
    Malformed,
    /// X-Sdk-Date is missing, unsigned or unreadable.
    #[error("the X-Sdk-Date header must be signed and have the form YYYYMMDDTHHMMSSZ")]
    Date,
    /// The request is from another time.
    #[error("X-Sdk-Date is more than 15 minutes off this service's clock")]
    Expired,
    /// A header that is listed as signed is not there.
    #[error("a header listed in SignedHeaders is missing")]
    MissingHeader,
    /// The body is not the one that was signed.
    #[error("the body does not match X-Sdk-Content-Sha256")]
    Body,
    /// The signature is another one.
    #[error("verify aksk signature fail")]
    Mismatch,
}

/// What is signed of a request.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as it was sent, still encoded.
    pub path: &'a str,
    /// The query as it was sent, without the question mark.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a [u8],
}

/// The Authorization header taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The access key.
    pub access: String,
    /// Names of the signed headers, in the client's order.
    pub signed_headers: Vec<String>,
    signature: Vec<u8>,
}

impl Authorization {
    /// Reads an Authorization header of this scheme.
    pub fn parse(header: &str) -> Result<Self, SignatureError> {
        let fields = header.strip_prefix(ALGORITHM).ok_or(SignatureError::Malformed)?;
        let field = |name: &str| {
            let mut values = fields.split(',').filter_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
            // A field that stands twice could mean one thing here and another to whoever reads the logs.
            values.next().filter(|value| !value.is_empty() && values.next().is_none()).ok_or(SignatureError::Malformed)
        };
        let signature = hex::decode(field("Signature")?).map_err(|_| SignatureError::Malformed)?;
        let signed_headers = field("SignedHeaders")?.split(';').map(str::to_owned).collect();
        Ok(Self { access: field("Access")?.to_owned(), signed_headers, signature })
    }

    /// Checks everything that can be told without a secret, at about `now`: whoever asks learns nothing of the key by it.
    pub fn prepare(&self, request: SignedRequest<'_>, now: Timestamp) -> Result<Prepared, SignatureError> {
        let (date, signed_at) = self.date(request.headers, now)?;
        let canonical = self.canonical(request)?;
        let to_sign = format!("{ALGORITHM}\n{date}\n{}", hex::encode(Sha256::digest(canonical)));
        Ok(Prepared { to_sign, signature: self.signature.clone(), good_until: signed_at + CLOCK_WINDOW })
    }

    fn date<'a>(&self, headers: &'a HeaderMap, now: Timestamp) -> Result<(&'a str, Timestamp), SignatureError> {
        if !self.signed_headers.iter().any(|name| name.eq_ignore_ascii_case(DATE_HEADER)) {
            return Err(SignatureError::Date);
        }
        let text = headers.get(DATE_HEADER).and_then(|value| value.to_str().ok()).ok_or(SignatureError::Date)?;
        let signed_at = DateTime::strptime("%Y%m%dT%H%M%SZ", text).map_err(|_| SignatureError::Date)?;
        let signed_at = TimeZone::UTC.to_timestamp(signed_at).map_err(|_| SignatureError::Date)?;
        match signed_at.duration_since(now).unsigned_abs() > CLOCK_WINDOW {
            true => Err(SignatureError::Expired),
            false => Ok((text, signed_at)),
        }
    }

    fn canonical(&self, request: SignedRequest<'_>) -> Result<String, SignatureError> {
        let headers = self.canonical_headers(request.headers)?;
        Ok([
            request.method.as_str(),
            &canonical_path(request.path),
            &canonical_query(request.query),
            &headers,
            &self.signed_headers.join(";"),
            &body_hash(request.headers, request.body)?,
        ]
        .join("\n"))
    }

    /// Exactly the names that the client lists: Go clients leave Host out and add X-Project-Id after signing.
    fn canonical_headers(&self, headers: &HeaderMap) -> Result<String, SignatureError> {
        let mut lines = String::new();
        for name in &self.signed_headers {
            let value = headers.get(name.as_str()).ok_or(SignatureError::MissingHeader)?;
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| SignatureError::Malformed)?;
            lines.extend([&name.to_ascii_lowercase(), ":", value.trim(), "\n"]);
        }
        Ok(lines)
    }
}

/// A request that is in order but for its signature.
#[derive(Debug, Clone)]
pub struct Prepared {
    to_sign: String,
    /// What the client sent.
    pub signature: Vec<u8>,
    /// When the request is too old to be taken.
    pub good_until: Timestamp,
}

impl Prepared {
    /// Checks that it was signed with `secret`.
    pub fn verify(&self, secret: &str) -> Result<(), SignatureError> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| SignatureError::Mismatch)?;
        mac.update(self.to_sign.as_bytes());
        // Constant time: the comparison must not tell how many bytes were right.
        mac.verify_slice(&self.signature).map_err(|_| SignatureError::Mismatch)
    }
}

/// Every segment decoded and encoded anew, with a slash at the end whether the request has one or not.
fn canonical_path(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut canonical = decoded.split('/').map(encode).collect::<Vec<_>>().join("/");
    if !canonical.ends_with('/') {
        canonical.push('/');
    }
    canonical
}

fn canonical_query(query: &str) -> String {
    let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The hash that was signed. If the client sent one it must be the body's own.
fn body_hash(headers: &HeaderMap, body: &[u8]) -> Result<String, SignatureError> {
    let own = hex::encode(Sha256::digest(body));
    let Some(sent) = headers.get(BODY_HASH_HEADER) else { return Ok(own) };
    match sent.to_str().map_err(|_| SignatureError::Body)? {
        UNSIGNED_PAYLOAD if body.is_empty() => Ok(UNSIGNED_PAYLOAD.to_owned()),
        sent if sent.eq_ignore_ascii_case(&own) => Ok(sent.to_owned()),
        _ => Err(SignatureError::Body),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

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

    /// Signs by the recipe as the documentation spells it, written independently of the code above.
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
    fn a_request_signed_by_the_recipe_is_accepted() {
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
    fn a_date_that_is_not_signed_is_refused() {
        let headers = headers(&[("x-sdk-date", DATE), ("host", "h")]);
        let canonical = format!("GET\n/v2/x/\n\nhost:h\n\nhost\n{}", hex::encode(Sha256::digest(b"")));
        assert_eq!(verify(&authorization(&canonical, "host"), minimal(&headers)), Err(SignatureError::Date));
    }

    #[test]
    fn an_unsigned_payload_is_good_for_an_empty_body_only() {
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
