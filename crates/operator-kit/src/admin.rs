//! The HTTP endpoint of the process: `/livez`, `/readyz`, `/metrics`.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{cache::watch::SyncState, metrics::Metrics};

type Check = Box<dyn Fn() -> bool + Send + Sync>;

/// Named checks of readiness; clones share them. The process is ready if none fails.
#[derive(Clone, Default)]
pub struct ReadinessChecks(Arc<RwLock<Vec<(String, Check)>>>);

impl ReadinessChecks {
    /// No checks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, which passes while `check` returns true. It runs at every request and must not block.
    pub fn add(&self, name: impl Into<String>, check: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push((name.into(), Box::new(check)));
    }

    /// Adds a check that passes while the watch is synced.
    pub fn add_watch(&self, name: impl Into<String>, state: watch::Receiver<SyncState>) {
        self.add(name, move || *state.borrow() == SyncState::Synced);
    }

    /// Names of the checks that do not pass.
    fn failed(&self) -> Vec<String> {
        let checks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        checks.iter().filter(|(_, passes)| !passes()).map(|(name, _)| name.clone()).collect()
    }
}

/// The bound endpoint.
pub struct Server {
    listener: TcpListener,
    routes: Router,
}

impl Server {
    /// Binds the address; port 0 takes a free one. The address that was bound is logged.
    ///
    /// `[::]` takes IPv6 and IPv4, as the kubelet probes a pod by either. If it cannot be bound because the system has
    /// no IPv6, `0.0.0.0` is bound instead.
    pub async fn bind(address: SocketAddr, checks: ReadinessChecks, metrics: Metrics) -> anyhow::Result<Self> {
        let listener = with_ipv4_fallback(address, TcpListener::bind).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        // Programs that start an operator on port 0 read the address from this line.
        tracing::info!(address = %listener.local_addr()?, "admin endpoints listen");
        let routes = Router::new()
            // An answer is enough. Liveness must not depend on other systems: a restart does not repair them.
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz).with_state(checks))
            .route("/metrics", get(serve_metrics).with_state(metrics));
        Ok(Self { listener, routes })
    }

    /// Serves until told to stop.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        // Open connections are dropped: an idle one of a scraper must not delay the end of the process.
        match stop.run_until_cancelled(async { axum::serve(self.listener, self.routes).await }).await {
            Some(result) => result.context("admin endpoint"),
            None => Ok(()),
        }
    }
}

/// Binds `address`, or the IPv4 address `0.0.0.0` with the same port where `[::]` cannot be bound.
///
/// The error is that of the first try. A port that is in use is no reason for a second one: it would hide that another
/// process listens.
async fn with_ipv4_fallback<T, F>(address: SocketAddr, bind: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let error = match bind(address).await {
        Ok(bound) => return Ok(bound),
        Err(error) => error,
    };
    if address.ip() != Ipv6Addr::UNSPECIFIED || error.kind() == io::ErrorKind::AddrInUse {
        return Err(error);
    }
    bind((Ipv4Addr::UNSPECIFIED, address.port()).into()).await.map_err(|_| error)
}

async fn readyz(State(checks): State<ReadinessChecks>) -> (StatusCode, String) {
    let failed = checks.failed();
    if failed.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", failed.join(", ")))
    }
}

async fn serve_metrics(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
    let open_metrics = prefers_open_metrics(&headers);
    let encode = move || if open_metrics { metrics.encode() } else { metrics.encode_for_prometheus() };
    // Some values are computed from all objects, which must not hold a thread of the reconciles.
    match spawn_blocking(encode).await {
        Ok(Ok(text)) => {
            let type_ = if open_metrics { OPEN_METRICS } else { PROMETHEUS };
            ([(header::CONTENT_TYPE, type_)], text).into_response()
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Whether the client asks for OpenMetrics, and does not prefer plain text (RFC 9110, 12.5.1). A client that does not ask
/// gets plain text: a scraper that is older than OpenMetrics, or a person.
fn prefers_open_metrics(headers: &HeaderMap) -> bool {
    let quality = |type_: &str| {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = accepted.flat_map(|value| value.split(','));
        let qualities = ranges.filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().filter(|found| found.eq_ignore_ascii_case(type_))?;
            parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |quality| quality.parse::<f32>().ok())
        });
        qualities.fold(0.0, f32::max)
    };
    let open_metrics = quality("application/openmetrics-text");
    open_metrics > 0.0 && open_metrics >= quality("text/plain")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn fetch(address: SocketAddr, path: &str) -> String {
        fetch_as(address, path, "*/*").await
    }

    async fn fetch_as(address: SocketAddr, path: &str, accept: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: {accept}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        answer
    }

    #[tokio::test]
    async fn readiness_names_the_failed_checks_and_liveness_ignores_them() {
        let checks = ReadinessChecks::new();
        let open = Arc::new(AtomicBool::new(false));
        let (seen, state) = (Arc::clone(&open), watch::Sender::new(SyncState::NotInstalled));
        checks.add("lease", move || seen.load(Ordering::Relaxed));
        checks.add_watch("hosts", state.subscribe());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(any, checks, Metrics::new("test", "0")).await.expect("binds");
        let (address, stop) = (server.listener.local_addr().expect("bound"), CancellationToken::new());
        let serving = tokio::spawn(server.run(stop.clone()));

        let answer = fetch(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("not ready: lease, hosts"), "{answer}");
        assert!(fetch(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let answer = fetch(address, "/metrics").await;
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
        assert!(answer.contains("# TYPE test_build_info gauge\n") && !answer.contains("# EOF"), "{answer}");
        let answer = fetch_as(address, "/metrics", "application/openmetrics-text;version=1.0.0").await;
        let type_ = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
        assert!(answer.contains(type_) && answer.contains("# EOF"), "{answer}");
        open.store(true, Ordering::Relaxed);
        state.send_replace(SyncState::Synced);
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));

        stop.cancel();
        serving.await.expect("no panic").expect("stops cleanly");
    }

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        let prefers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values.iter().copied().map(header::HeaderValue::from_static) {
                headers.append(header::ACCEPT, value);
            }
            prefers_open_metrics(&headers)
        };
        // Prometheus 3, and 2.
        assert!(prefers(&["application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
            text/plain;version=0.0.4;q=0.2,*/*;q=0.1"]));
        assert!(prefers(&["application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"]));
        assert!(prefers(&["text/plain;q=0.9", "Application/OpenMetrics-Text"]));
        for values in [
            &["*/*"][..],
            &[],
            &["text/plain;version=0.0.4;q=1,*/*;q=0.1"],
            &["application/openmetrics-text;q=0.4, text/plain;q=0.5"],
            &["application/openmetrics-text;q=0"],
            &["application/json, application/*"],
        ] {
            assert!(!prefers(values), "{values:?}");
        }
    }

    #[tokio::test]
    async fn without_ipv6_all_ipv4_addresses_are_bound() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080));
        let without_ipv6 = |address: SocketAddr| async move {
            if address.is_ipv4() { Ok(address) } else { Err(io::Error::from(io::ErrorKind::Unsupported)) }
        };
        let bound = with_ipv4_fallback(any, without_ipv6).await.expect("falls back");
        assert_eq!(bound, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)));
        let local = SocketAddr::from((Ipv6Addr::LOCALHOST, 8080));
        assert!(with_ipv4_fallback(local, without_ipv6).await.is_err(), "one address has no substitute");
        let in_use = |address: SocketAddr| async move {
            if address.is_ipv4() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::AddrInUse)) }
        };
        assert!(with_ipv4_fallback(any, in_use).await.is_err(), "a port in use is not hidden");
    }

    #[tokio::test]
    async fn the_default_address_answers_on_ipv4_too() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let server = Server::bind(any, ReadinessChecks::new(), Metrics::new("test", "0")).await.expect("binds");
        let port = server.listener.local_addr().expect("bound").port();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.run(stop.clone()));
        assert!(fetch((Ipv4Addr::LOCALHOST, port).into(), "/livez").await.starts_with("HTTP/1.1 200"));
        stop.cancel();
        serving.await.expect("no panic").expect("stops cleanly");
    }
}
