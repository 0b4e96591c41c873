//! API clients whose requests always end.
//!
//! Two defaults of kube are changed. kube has no time limit for an ordinary request, so a request without an answer
//! would block a reconcile for ever; and it repeats requests that were answered with 429, 503 or 504 up to 15 times, so
//! a write could be sent minutes after it was decided. Here a request has one try and a time limit; what follows from a
//! failure is decided by [the controller](crate::controller::disposition).

use std::{
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use axum::body::{Body as AnyBody, Bytes, HttpBody, to_bytes};
use futures::{StreamExt as _, future::BoxFuture};
use http::{HeaderValue, Method, Request, Response, header::USER_AGENT};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::{BoxError, Service, layer::layer_fn};

use crate::metrics::Metrics;

/// Time limits of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// To open a connection, TLS included.
    pub connect: Duration,
    /// From a request to the end of its answer, except for watches.
    pub request: Duration,
    /// From the request of a watch to the start of its answer. kube's idle timeout ends the watch itself.
    pub watch_start: Duration,
    /// Largest answer, and largest line of a watch, in bytes.
    pub answer_max: usize,
}

impl Default for Limits {
    /// 5 s to connect, 15 s for a request, 30 s to start a watch, 256 MiB: a page of a list has up to 500 objects.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(15),
            watch_start: Duration::from_secs(30),
            answer_max: 256 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// Limits of the lease's client: several tries fit into the renew deadline.
    pub fn lease(renew_deadline: Duration) -> Self {
        let request = renew_deadline * 3 / 10;
        Self { connect: renew_deadline / 5, request, watch_start: request, ..Self::default() }
    }
}

/// A request took longer than its limit. It may have been carried out.
#[derive(Debug, thiserror::Error)]
#[error("no answer from the API server within {} s", .0.as_secs_f32())]
pub struct TimedOut(Duration);

/// The configuration from the environment: `KUBECONFIG` (or `~/.kube/config`) if there is one, otherwise the pod's
/// service account.
///
/// A kubeconfig may name commands to run and files to read, so it must come from the administrator who starts the
/// operator, never from an API object.
pub async fn infer() -> anyhow::Result<Config> {
    Config::infer().await.context("no usable cluster configuration: set KUBECONFIG, or run in a pod")
}

/// A client with these limits that counts its requests.
///
/// Errors if the configuration (certificates, credentials) cannot be used.
pub fn build(mut config: Config, user_agent: &str, limits: Limits, metrics: &Metrics) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(limits.connect);
    config.default_retry = false;
    // kube takes it from HTTPS_PROXY in the environment, and fails, as it is built without proxies.
    config.proxy_url = None;
    let user_agent = HeaderValue::from_str(user_agent).map_err(|error| kube::Error::HttpError(error.into()))?;
    config.headers.push((USER_AGENT, user_agent));
    let metrics = metrics.clone();
    let layer = layer_fn(|inner| Bounded { inner, limits, metrics: metrics.clone() });
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

/// Limits and counts the requests of the inner service.
#[derive(Clone)]
struct Bounded<S> {
    inner: S,
    limits: Limits,
    metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let watch = is_watch(request.uri().query());
        let verb = if watch { "WATCH" } else { verb(request.method()) };
        let limit = if watch { self.limits.watch_start } else { self.limits.request };
        let answer_max = self.limits.answer_max;
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let whole = async {
                let (head, body) = answer.await.map_err(Into::into)?.into_parts();
                let body = AnyBody::new(body);
                // The limit includes the body, so that an answer that stalls half-way ends too.
                let body = if watch && head.status.is_success() {
                    in_lines(body, answer_max)
                } else {
                    to_bytes(body, answer_max).await?.into()
                };
                Ok(Response::from_parts(head, body))
            };
            let result = tokio::time::timeout(limit, whole).await.unwrap_or_else(|_| Err(TimedOut(limit).into()));
            metrics.request_ended(verb, class(&result));
            result
        })
    }
}

/// The body, which fails at a line that is longer than `max` bytes: kube reads a watch line by line.
fn in_lines(body: AnyBody, max: usize) -> AnyBody {
    let mut line = 0_usize;
    AnyBody::from_stream(body.into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(BoxError::from)?;
        line = match chunk.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => chunk.len() - end - 1,
            None => line.saturating_add(chunk.len()),
        };
        if line > max { Err(BoxError::from("a line of the watch is too long")) } else { Ok(chunk) }
    }))
}

fn is_watch(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1" | "follow=true")))
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}

fn class<B>(result: &Result<Response<B>, BoxError>) -> &'static str {
    match result {
        Ok(response) => match response.status().as_u16() {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        },
        Err(error) if error.is::<TimedOut>() => "timeout",
        Err(_) => "error",
    }
}

/// A client on an in-memory service, for tests.
#[cfg(test)]
pub(crate) fn from_service<S, B>(service: S, limits: Limits, metrics: &Metrics) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(Bounded { inner: service, limits, metrics: metrics.clone() }, "default")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::error::{Class, Error};
    use futures::{StreamExt, stream};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use std::convert::Infallible;

    /// Answers the head at once and never finishes the body.
    async fn stalled(_: Request<Body>) -> Result<Response<AnyBody>, Infallible> {
        let first = stream::iter([Ok::<_, Infallible>("{")]);
        Ok(Response::new(AnyBody::from_stream(first.chain(stream::pending()))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_ends_even_if_its_answer_stalls() {
        let metrics = Metrics::new("test", "0");
        let client = from_service(tower::service_fn(stalled), Limits::default(), &metrics);
        let error = Api::<ConfigMap>::default_namespaced(client).get("x").await.expect_err("times out");
        let error = Error::from(error);
        assert_eq!(error.class(), Class::Transient);
        assert!(error.message().contains("within 15 s"), "{error}");
        assert!(metrics.encode().expect("text").contains(r#"api_requests_total{verb="GET",code="timeout"} 1"#));
    }

    /// Says more and more, and never ends a line.
    async fn endless(_: Request<Body>) -> Result<Response<AnyBody>, Infallible> {
        Ok(Response::new(AnyBody::from_stream(stream::repeat_with(|| Ok::<_, Infallible>("x".repeat(1024))))))
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_kept() {
        let limits = Limits { answer_max: 64 * 1024, ..Limits::default() };
        let client = from_service(tower::service_fn(endless), limits, &Metrics::new("test", "0"));
        let api = Api::<ConfigMap>::default_namespaced(client);
        assert!(api.get("x").await.is_err());
        let mut events = api.watch(&kube::api::WatchParams::default(), "1").await.expect("starts").boxed();
        assert!(events.next().await.is_some_and(|event| event.is_err()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_may_stay_silent() {
        let client = from_service(tower::service_fn(stalled), Limits::default(), &Metrics::new("test", "0"));
        let api = Api::<ConfigMap>::default_namespaced(client);
        let mut events = api.watch(&kube::api::WatchParams::default(), "1").await.expect("starts").boxed();
        assert!(tokio::time::timeout(Duration::from_mins(10), events.next()).await.is_err(), "stays open");
    }
}
