//! SDK-HMAC-SHA256: the canonical form of a request, which signing and verifying share.
//!
//! Source: the gateway's public documentation ("AK/SK signing and authentication"). Comments name the places where clients
//! deviate from it.

use axum::http::{HeaderMap, Method};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::signature_error::SignatureError;

/// The scheme's name at the head of the Authorization header.
pub const ALGORITHM: &str = "SDK-HMAC-SHA256";

/// The header with the time of the signature, which must be signed itself.
pub(super) const DATE_HEADER: &str = "x-sdk-date";
/// The format of that header.
pub(super) const DATE_FORM: &str = "%Y%m%dT%H%M%SZ";

const BODY_HASH_HEADER: &str = "x-sdk-content-sha256";
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// All characters except the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The parts of a request that a signature covers.
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

/// Returns the text that the secret signs: a request of this date with exactly the headers listed as signed.
pub(super) fn string_to_sign(
    request: SignedRequest<'_>,
    signed_headers: &[String],
    date: &str,
) -> Result<String, SignatureError> {
    let canonical = [
        request.method.as_str(),
        &canonical_path(request.path),
        &canonical_query(request.query),
        &canonical_headers(request.headers, signed_headers)?,
        &signed_headers.join(";"),
        &body_hash(request.headers, request.body)?,
    ]
    .join("\n");
    Ok(format!("{ALGORITHM}\n{date}\n{}", hex::encode(Sha256::digest(canonical))))
}

/// Returns the HMAC of that text under a secret.
pub(super) fn keyed(secret: &str, to_sign: &str) -> Result<Hmac<Sha256>, SignatureError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| SignatureError::Mismatch)?;
    mac.update(to_sign.as_bytes());
    Ok(mac)
}

/// Returns the headers that the client lists as signed and no others: Go clients leave out Host and add X-Project-Id after
/// signing.
fn canonical_headers(headers: &HeaderMap, signed: &[String]) -> Result<String, SignatureError> {
    let mut lines = String::new();
    for name in signed {
        let mut values = headers.get_all(name.as_str()).iter();
        let value = values.next().ok_or(SignatureError::MissingHeader)?;
        // Nothing says which of several values the signature covers, and which one a proxy in front has read.
        if values.next().is_some() {
            return Err(SignatureError::RepeatedHeader);
        }
        let value = std::str::from_utf8(value.as_bytes()).map_err(|_| SignatureError::Malformed)?;
        lines.extend([&name.to_ascii_lowercase(), ":", value.trim(), "\n"]);
    }
    Ok(lines)
}

/// Decodes and re-encodes every segment, and ends the path with a slash whether or not the request does.
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

/// Returns the signed hash of the body. A hash in the request must match the body.
fn body_hash(headers: &HeaderMap, body: &[u8]) -> Result<String, SignatureError> {
    let own = hex::encode(Sha256::digest(body));
    let Some(sent) = headers.get(BODY_HASH_HEADER) else { return Ok(own) };
    match sent.to_str().map_err(|_| SignatureError::Body)? {
        UNSIGNED_PAYLOAD if body.is_empty() => Ok(UNSIGNED_PAYLOAD.to_owned()),
        sent if sent.eq_ignore_ascii_case(&own) => Ok(sent.to_owned()),
        _ => Err(SignatureError::Body),
    }
}
