//! Why a request's signature is refused.

/// Why a signature is refused. Clients see these texts, so none reveals the expected signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is not of the form `SDK-HMAC-SHA256 Access=…, SignedHeaders=…, Signature=…`.
    #[error("the Authorization header is malformed")]
    Malformed,
    /// The request is signed by another algorithm of Huawei Cloud's SDKs: with a derived key (`Credential=`), SM3 or V11.
    #[error(
        "this signing algorithm is not supported: sign with SDK-HMAC-SHA256 and the secret key itself, as Access=…"
    )]
    Algorithm,
    /// X-Sdk-Date is missing, not signed or malformed.
    #[error("the X-Sdk-Date header must be signed and have the form YYYYMMDDTHHMMSSZ")]
    Date,
    /// X-Sdk-Date is outside the clock window.
    #[error("X-Sdk-Date is more than 15 minutes off this service's clock")]
    Expired,
    /// A header listed as signed is missing.
    #[error("a header listed in SignedHeaders is missing")]
    MissingHeader,
    /// A header listed as signed comes several times.
    #[error("a header listed in SignedHeaders comes several times")]
    RepeatedHeader,
    /// The body does not match the signed hash.
    #[error("the body does not match X-Sdk-Content-Sha256")]
    Body,
    /// The signature does not match.
    #[error("verify aksk signature fail")]
    Mismatch,
}
