//! The HTTP endpoint of the process: `/livez`, `/readyz`, `/metrics`.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{cache::watch::SyncState, metrics::Metrics};

type Check = Box<dyn Fn() -> bool + Send + Sync>;

/// Named conditions of readiness; clones share them. With no gate the process is ready.
#[derive(Clone, Default)]
pub struct ReadinessChecks(Arc<RwLock<Vec<(String, Check)>>>);

impl ReadinessChecks {
    /// No gates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a gate that is open while `check` says so. It is asked at every request and must not block.
    pub fn add(&self, name: impl Into<String>, check: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push((name.into(), Box::new(check)));
    }

    /// Adds a gate that is open once the watch is synced.
    pub fn add_watch(&self, name: impl Into<String>, state: watch::Receiver<SyncState>) {
        self.add(name, move || *state.borrow() == SyncState::Synced);
    }

    /// Names of the gates that are not open.
    pub fn closed(&self) -> Vec<String> {
        let gates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        gates.iter().filter(|(_, open)| !open()).map(|(name, _)| name.clone()).collect()
    }
}

/// The bound endpoint.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    routes: Router,
}

impl Server {
    /// Binds the address; port 0 takes a free one. The address that was bound is logged.
    pub async fn bind(address: SocketAddr, gates: ReadinessChecks, metrics: Metrics) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        tracing::info!(%address, "admin endpoint listens");
        let routes = Router::new()
            // Answering is the proof of life. It must not depend on others: a restart does not mend them.
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz).with_state(gates))
            .route("/metrics", get(serve_metrics).with_state(metrics));
        Ok(Self { listener, address, routes })
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until told to stop.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        // No waiting for open connections: a scraper's idle one must not hold up the end of the process.
        match stop.run_until_cancelled(async { axum::serve(self.listener, self.routes).await }).await {
            Some(result) => result.context("admin endpoint"),
            None => Ok(()),
        }
    }
}

async fn readyz(State(gates): State<ReadinessChecks>) -> (StatusCode, String) {
    let closed = gates.closed();
    if closed.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", closed.join(", ")))
    }
}

async fn serve_metrics(State(metrics): State<Metrics>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        answer
    }

    #[tokio::test]
    async fn readiness_names_the_closed_gates_and_liveness_ignores_them() {
        let gates = ReadinessChecks::new();
        let open = Arc::new(AtomicBool::new(false));
        let (seen, state) = (Arc::clone(&open), watch::Sender::new(SyncState::NotInstalled));
        gates.add("lease", move || seen.load(Ordering::Relaxed));
        gates.add_watch("hosts", state.subscribe());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(any, gates, Metrics::new("test", "0")).await.expect("binds");
        let (address, stop) = (server.address(), CancellationToken::new());
        let serving = tokio::spawn(server.run(stop.clone()));

        let answer = fetch(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("not ready: lease, hosts"), "{answer}");
        assert!(fetch(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/metrics").await.contains("# EOF"));
        open.store(true, Ordering::Relaxed);
        state.send_replace(SyncState::Synced);
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));

        stop.cancel();
        serving.await.expect("no panic").expect("stops cleanly");
    }
}
