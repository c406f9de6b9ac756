//! Stylesheets, scripts and icon of the pages, all embedded in the binary. uPlot, which draws the charts, is copied from its npm
//! package by `scripts/vendor`.

use std::sync::LazyLock;

use axum::{
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

/// Name, type and content.
const ASSETS: [(&str, &str, &[u8]); 7] = [
    ("console.css", "text/css; charset=utf-8", include_bytes!("../../assets/console/console.css")),
    ("console.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/console/console.js")),
    ("chart.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/console/chart.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../../assets/console/icon.svg")),
    ("uplot.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/vendor/uplot/uPlot.iife.min.js")),
    ("uplot.css", "text/css; charset=utf-8", include_bytes!("../../assets/vendor/uplot/uPlot.min.css")),
    // Its licence goes with every copy.
    ("uplot-license.txt", "text/plain; charset=utf-8", include_bytes!("../../assets/vendor/uplot/LICENSE")),
];

/// Returns a version that changes whenever an asset does.
pub(super) fn assets_version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let mut hash = Sha256::new();
        ASSETS.iter().for_each(|(.., content)| hash.update(content));
        hex::encode(&hash.finalize()[..6])
    });
    &VERSION
}

/// Returns an asset as the answer to a request with this query. Browsers may cache it under the versioned address that pages
/// use, and revalidate it under any other.
pub(super) fn asset(name: &str, query: Option<&str>) -> Option<Response> {
    let (_, kind, content) = ASSETS.iter().find(|(known, ..)| *known == name)?;
    let is_versioned = query.is_some_and(|query| query == format!("v={}", assets_version()));
    let caching = if is_versioned { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, HeaderValue::from_static(caching))];
    Some((headers, *content).into_response())
}
