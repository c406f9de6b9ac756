//! The listener that Prometheus comes to. It serves `/metrics` and nothing else, and never shares the API's.

use std::sync::Arc;

use axum::{Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use prometheus_client::encoding::prometheus_text;
use tokio::{net::TcpListener, sync::watch};

use super::Metrics;
use crate::connections::{self, Bounds};

/// Scrapers at a time.
const CONNECTIONS: u32 = 32;

/// Serves until `shutdown` says to end.
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
