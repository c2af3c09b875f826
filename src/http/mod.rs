//! Health, metrics and status over HTTP. The accept loop is ours: a time for the request's head, a cap on connections,
//! so that a slow or greedy client cannot keep the probes out. It reads what a [`Source`] says and decides nothing.

mod server;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::json;

pub use server::{HttpError, Limits, Server};

use crate::metrics::Format;

/// One check of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is checked: a stable word.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What there is to say of it.
    pub detail: String,
}

/// What the routes show. Answers come from memory: none may wait for Kafka.
pub trait Source: Send + Sync + 'static {
    /// `Err` = a loop no longer turns, and which.
    ///
    /// # Errors
    /// What stands still.
    fn alive(&self) -> Result<(), String>;

    /// What must hold before the process does its work; ready = all hold.
    fn checks(&self) -> Vec<Check>;

    /// The body of `/v1/status`.
    fn status(&self) -> serde_json::Value;

    /// The body of `/metrics`.
    fn metrics(&self, format: Format) -> String;
}

type Shared = Arc<dyn Source>;

/// The routes.
pub fn router(source: Shared) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(source)
}

/// An error as `application/problem+json` (RFC 9457).
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    let headers = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    )];
    (status, headers, body.to_string()).into_response()
}

fn json_body(status: StatusCode, body: &serde_json::Value) -> Response {
    // A probe's answer is old the moment it is given.
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body.to_string()).into_response()
}

async fn livez(State(source): State<Shared>) -> Response {
    match source.alive() {
        Ok(()) => json_body(StatusCode::OK, &json!({ "alive": true })),
        Err(stuck) => problem(StatusCode::SERVICE_UNAVAILABLE, &stuck),
    }
}

async fn readyz(State(source): State<Shared>) -> Response {
    let checks = source.checks();
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json_body(status, &json!({ "ready": ready, "checks": checks }))
}

async fn status(State(source): State<Shared>) -> Response {
    json_body(StatusCode::OK, &source.status())
}

async fn metrics(State(source): State<Shared>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    let format = Format::accepted(accept);
    let headers = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    )];
    (headers, source.metrics(format)).into_response()
}

async fn not_found(uri: Uri) -> Response {
    // The path is the client's own; it is cut so that an answer stays small.
    let path: String = uri.path().chars().take(100).collect();
    problem(
        StatusCode::NOT_FOUND,
        &format!("there is nothing at `{path}`"),
    )
}

async fn method_not_allowed() -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "this is read with GET")
}

#[cfg(test)]
mod tests;
