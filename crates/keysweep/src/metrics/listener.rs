//! The listener for Prometheus. It serves `/metrics` and health probes, which clients of the API cannot keep from being answered
//! here: it is never the listener of the API.

use std::sync::Arc;

use axum::{Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use prometheus_client::encoding::prometheus_text;
use tokio::{net::TcpListener, sync::watch};

use super::Metrics;
use crate::{
    connections::{self, Bounds, Peers, PlainListener, Routes},
    proxies::TrustedProxies,
};

/// Concurrent connections.
const CONNECTIONS: u32 = 32;

/// Serves `/metrics` and the health probes until `shutdown` is set.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    probes: Router,
    shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let all = Router::new().route("/metrics", get(scrape)).with_state(metrics).merge(probes);
    let bounds = Bounds::new(CONNECTIONS, 0, Peers::new(CONNECTIONS, TrustedProxies::default()));
    connections::serve(PlainListener::new(listener), Routes { all, reserved: Router::new() }, bounds, shutdown).await
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], metrics.scrape().await)
}
