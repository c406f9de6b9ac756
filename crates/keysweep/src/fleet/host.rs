//! The host that an instance's sweep burdens.

use crate::model::Instance;

/// The host of a single server's URL, in lower case; `None` where there are several (clusters, Sentinel), which share
/// a sweep's load in a way that is not known before it begins.
pub fn host(instance: &Instance) -> Option<String> {
    let (scheme, rest) = instance.url.split_once("://")?;
    if !matches!(scheme, "redis" | "rediss" | "valkey" | "valkeys") {
        return None;
    }
    let address = rest.split('/').next()?;
    let host = match address.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => address.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}
