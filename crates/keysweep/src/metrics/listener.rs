//! The listener for Prometheus. It serves `/metrics` alone and is never the listener of the API.

use std::sync::Arc;

use axum::{Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use prometheus_client::encoding::prometheus_text;
use tokio::{net::TcpListener, sync::watch};

use super::Metrics;
use crate::connections::{self, Bounds};

/// Concurrent connections.
const CONNECTIONS: u32 = 32;

/// Serves `/metrics` until `shutdown` is set.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new().route("/metrics", get(scrape)).with_state(metrics);
    connections::serve(listener, router, Bounds::of(CONNECTIONS), shutdown).await
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], metrics.scrape().await)
}
