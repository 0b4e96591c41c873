//! The connection to the collector: kube's HTTP client, without credentials of the cluster. It brings rustls with the
//! system's certificate authorities, or those that `SSL_CERT_FILE` names.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::{Body as AnyBody, to_bytes};
use http::{Request, Response, StatusCode, Uri, uri::PathAndQuery};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError};

use crate::controller::error::error_chain;

/// Time to open a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// Time from a request to the end of its answer; OpenTelemetry's default.
const REQUEST: Duration = Duration::from_secs(10);
/// Largest answer, in bytes: an error message at most.
const ANSWER_MAX: usize = 64 * 1024;

/// Why spans were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What happened.
    pub(super) message: String,
    /// Whether the same spans may be taken later, by the specification of OTLP.
    pub(super) is_transient: bool,
}

/// Sends requests to the collector. Clones share the connection and the last failure, which OpenTelemetry's exporter does
/// not pass on.
#[derive(Clone)]
pub(super) struct Collector {
    client: Client,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl Collector {
    /// A client of the host in `url`.
    ///
    /// Errors if there is no TLS for it.
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let mut host = url.parse::<Uri>()?.into_parts();
        host.path_and_query = Some(PathAndQuery::from_static("/"));
        let mut config = Config::new(Uri::from_parts(host)?);
        config.connect_timeout = Some(CONNECT);
        config.default_retry = false;
        config.proxy_url = None;
        Ok(Self { client: ClientBuilder::try_from(config)?.build(), failure: Arc::default() })
    }

    /// Why the last request failed.
    pub(super) fn take_failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn failed(&self, message: String, is_transient: bool) {
        let failure = Failure { message, is_transient };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = async {
            let (head, body) = self.client.send(request.map(|body| Body::from(body.to_vec()))).await?.into_parts();
            Ok(Response::from_parts(head, to_bytes(AnyBody::new(body), ANSWER_MAX).await?))
        };
        let answer: Result<_, HttpError> = tokio::time::timeout(REQUEST, answer)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", REQUEST.as_secs()).into()));
        match &answer {
            Err(error) => self.failed(error_chain(error.as_ref()), true),
            Ok(answer) if !answer.status().is_success() => {
                self.failed(format!("it answers {}", answer.status()), is_transient(answer.status()));
            }
            Ok(_) => {}
        }
        answer
    }
}

fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.send(request))
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}
