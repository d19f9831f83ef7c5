//! The operations listener: for probes and Prometheus, not for clients.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::gate::{Closed, Gate};
use crate::metrics;

#[derive(Clone)]
struct Operations {
    gate: Gate,
    metrics: PrometheusHandle,
}

/// `/healthz`: the process lives. `/readyz`: it should get new clients. `/metrics`: for Prometheus.
pub fn router(gate: Gate, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get("alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(page))
        .with_state(Operations { gate, metrics })
}

async fn ready(State(operations): State<Operations>) -> (StatusCode, String) {
    match operations.gate.pass() {
        Ok(()) => (StatusCode::OK, format!("ready; {}\n", operations.gate.broker())),
        Err(Closed::Broker) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", operations.gate.broker())),
        Err(closed) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", closed.words())),
    }
}

async fn page(State(operations): State<Operations>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, metrics::render(&operations.metrics))
}
