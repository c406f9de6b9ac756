//! SDK-HMAC-SHA256: signing, which the command line uses to call a service.

use axum::http::{HeaderMap, HeaderValue, Method, header::AUTHORIZATION};
use hmac::Mac;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::{
    canonical::{ALGORITHM, DATE_FORM, DATE_HEADER, SignedRequest, keyed, string_to_sign},
    signature::SignatureError,
};

/// Makes signatures unique. Dates have whole seconds and the signature of a change is accepted once, so without it the same
/// change sent twice within a second would be refused.
const NONCE_HEADER: &str = "x-keysweep-nonce";

/// An access key with its secret.
#[derive(Debug)]
pub struct Signer {
    /// The access key.
    pub access: String,
    /// Its secret.
    pub secret: SecretString,
}

impl Signer {
    /// Returns the headers that sign a request at `now`. Path and query are encoded as they are sent.
    ///
    /// Host is not signed, because a proxy in front of the service may change it.
    pub fn sign(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<HeaderMap, SignatureError> {
        let date = now.strftime(DATE_FORM).to_string();
        let nonce = hex::encode(rand::random::<[u8; 8]>());
        let mut headers = HeaderMap::new();
        headers.insert(DATE_HEADER, value(&date)?);
        headers.insert(NONCE_HEADER, value(&nonce)?);
        let signed = [NONCE_HEADER, DATE_HEADER].map(str::to_owned);
        let to_sign = string_to_sign(SignedRequest { method, path, query, headers: &headers, body }, &signed, &date)?;
        let signature = hex::encode(keyed(self.secret.expose_secret(), &to_sign)?.finalize().into_bytes());
        let Self { access, .. } = self;
        let signed = signed.join(";");
        let authorization = format!("{ALGORITHM} Access={access}, SignedHeaders={signed}, Signature={signature}");
        headers.insert(AUTHORIZATION, value(&authorization)?);
        Ok(headers)
    }
}

fn value(text: &str) -> Result<HeaderValue, SignatureError> {
    HeaderValue::from_str(text).map_err(|_| SignatureError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::signature::Authorization, *};

    fn signer() -> Signer {
        Signer { access: "AK".into(), secret: "the-secret-of-the-test".into() }
    }

    fn now() -> Timestamp {
        "2026-11-24T08:30:00Z".parse().expect("a time")
    }

    fn verify(headers: &HeaderMap, path: &str, query: &str, body: &[u8], secret: &str) -> Result<(), SignatureError> {
        let authorization = headers[AUTHORIZATION].to_str().expect("a text");
        let request = SignedRequest { method: &Method::PUT, path, query, headers, body };
        Authorization::parse(authorization)?.prepare(request, now())?.verify(secret)
    }

    #[test]
    fn signing_the_same_change_twice_in_a_second_gives_two_signatures() {
        let sign = || signer().sign(&Method::PUT, "/x", "", b"{}", now()).expect("signed")[AUTHORIZATION].clone();
        assert_ne!(sign(), sign());
    }

    proptest! {
        #[test]
        fn a_signature_verifies_its_own_request_and_no_other(
            path in "/[a-z0-9%/ äé~.-]{0,30}", query in "[a-z=&0-9%ä]{0,20}", body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let headers = signer().sign(&Method::PUT, &path, &query, &body, now()).expect("signed");
            prop_assert_eq!(verify(&headers, &path, &query, &body, "the-secret-of-the-test"), Ok(()));
            prop_assert_eq!(verify(&headers, &path, &query, &body, "another"), Err(SignatureError::Mismatch));
            let longer = [body.as_slice(), b"x"].concat();
            prop_assert_eq!(
                verify(&headers, &path, &query, &longer, "the-secret-of-the-test"),
                Err(SignatureError::Mismatch)
            );
            let other = format!("{path}x");
            prop_assert_eq!(
                verify(&headers, &other, &query, &body, "the-secret-of-the-test"),
                Err(SignatureError::Mismatch)
            );
        }
    }
}
