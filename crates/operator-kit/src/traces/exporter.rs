//! Sends spans in batches, in the background.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::Context as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::traces::{
    collector::{Collector, Failure},
    queue::{Receiver, Traces},
};

/// Most spans in one request; OpenTelemetry's default.
const BATCH_MAX: usize = 512;
/// How long a span waits for others to be sent with it.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Time until a batch that was not taken is sent again; doubled each time, up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Time between two warnings that the collector does not take spans.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);
/// Time for what is left at the end of the process; less than services have to stop.
const FLUSH: Duration = Duration::from_secs(3);

/// Sends the spans that [`Traces`] are handed; has to be run as a service.
pub struct TraceExporter {
    receiver: Receiver,
    exporter: SpanExporter,
    collector: Collector,
    scope: InstrumentationScope,
    url: String,
    warned: Option<Instant>,
}

impl TraceExporter {
    /// An exporter of `operator` to `url`, and where it takes spans from.
    ///
    /// Errors if a setting of OpenTelemetry in the environment cannot be used.
    pub(crate) fn new(url: String, operator: &'static str, version: &'static str) -> anyhow::Result<(Traces, Self)> {
        let collector = Collector::new(&url).context("client for traces")?;
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector.clone())
            .with_endpoint(&url)
            .with_protocol(Protocol::HttpBinary)
            // It would not try for longer than some seconds.
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .context("settings for traces")?;
        let version_attribute = KeyValue::new("service.version", version);
        exporter
            .set_resource(&Resource::builder().with_service_name(operator).with_attribute(version_attribute).build());
        let scope = InstrumentationScope::builder(operator).with_version(version).build();
        let (traces, receiver) = Traces::new();
        tracing::info!(url, "traces are sent");
        Ok((traces, Self { receiver, exporter, collector, scope, url, warned: None }))
    }

    /// Sends until `stop` is cancelled, and then what is left, for a few seconds.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        while stop.run_until_cancelled(self.collect(&mut batch)).await.is_some() {
            if stop.run_until_cancelled(self.send_until_taken(&mut batch)).await.is_none() {
                break;
            }
        }
        self.receiver.queue.close();
        let left = async {
            loop {
                self.fill(&mut batch);
                if batch.is_empty() || !self.send(&batch).await {
                    return;
                }
                batch.clear();
            }
        };
        // The result does not matter: the process ends, and what was not taken is lost.
        let _ = timeout(FLUSH, left).await;
        Ok(())
    }

    /// Waits for spans, and for those that come soon after the first.
    async fn collect(&mut self, batch: &mut Vec<SpanData>) {
        match self.receiver.queue.recv().await {
            Some(first) => batch.push(first.into_data(self.scope.clone())),
            // Nobody can hand over spans any more.
            None => std::future::pending().await,
        }
        sleep(BATCH_DELAY).await;
        self.fill(batch);
    }

    /// Adds what is in the queue.
    fn fill(&mut self, batch: &mut Vec<SpanData>) {
        while batch.len() < BATCH_MAX
            && let Ok(span) = self.receiver.queue.try_recv()
        {
            batch.push(span.into_data(self.scope.clone()));
        }
    }

    /// Sends the batch until it is taken, or refused for good, and empties it.
    async fn send_until_taken(&mut self, batch: &mut Vec<SpanData>) {
        let (mut pause, longest) = PAUSE;
        while !self.send(batch).await {
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
        batch.clear();
    }

    /// Sends the batch. Returns whether it is done with: taken, or refused for good.
    async fn send(&mut self, batch: &[SpanData]) -> bool {
        let Err(error) = self.exporter.export(batch.to_vec()).await else {
            if self.warned.take().is_some() {
                tracing::info!(url = self.url, "the collector takes spans again");
            }
            return true;
        };
        let unsent = || Failure { message: error.to_string(), is_transient: false };
        let Failure { message, is_transient } = self.collector.take_failure().unwrap_or_else(unsent);
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARNING_INTERVAL) {
            self.warned = Some(Instant::now());
            let dropped = self.receiver.dropped.load(Ordering::Relaxed);
            let fate = if is_transient { "they are kept and sent again" } else { "they are dropped" };
            tracing::warn!(
                url = self.url,
                spans = batch.len(),
                dropped_so_far = dropped,
                "the collector does not take spans, {fate}: {message}. Check the endpoint of traces (OTEL_EXPORTER_OTLP_ENDPOINT), \
                 its certificate, and whether a NetworkPolicy lets this operator connect to its port"
            );
        }
        !is_transient
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::{
        queue::QUEUE_MAX,
        span::{Span, Whole},
    };
    use axum::{Router, body::Bytes, routing::post};
    use http::StatusCode;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use std::sync::{Arc, Mutex};
    use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

    fn span(name: &'static str) -> Span {
        let at = Time(Timestamp::from_second(1).expect("in range"));
        Whole::root("6f9619ff-8b86-4011-b42d-00cf4fc964ff", name).ended(&at, &at)
    }

    /// Listens, answers with these one after the other and then with 200, and returns the URL and each request's body.
    async fn listen(answers: &[StatusCode]) -> (String, mpsc::UnboundedReceiver<Bytes>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1/traces", listener.local_addr().expect("an address"));
        let (sender, requests) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.to_vec()));
        let answer = post(move |body: Bytes| async move {
            sender.send(body).expect("the test goes on");
            let mut left = answers.lock().expect("lock");
            if left.is_empty() { StatusCode::OK } else { left.remove(0) }
        });
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", answer)).await });
        (url, requests)
    }

    struct Running {
        traces: Traces,
        stop: CancellationToken,
        task: JoinHandle<anyhow::Result<()>>,
    }

    fn start(url: String) -> Running {
        let (traces, exporter) = TraceExporter::new(url, "test-operator", "0").expect("an exporter");
        let stop = CancellationToken::new();
        Running { traces, stop: stop.clone(), task: tokio::spawn(exporter.run(stop)) }
    }

    /// Names of spans stand in protobuf as they are.
    fn has(body: &Bytes, text: &str) -> bool {
        body.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[tokio::test]
    async fn spans_are_sent_again_unless_they_are_refused_for_good() {
        let (url, mut requests) =
            listen(&[StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK, StatusCode::BAD_REQUEST]).await;
        let Running { traces, stop, task } = start(url);
        traces.hand_over(|| [span("first"), span("second")]);
        for what in ["not taken", "sent again"] {
            let body = requests.recv().await.expect("a request");
            assert!(has(&body, "first") && has(&body, "second") && has(&body, "test-operator"), "{what}: {body:?}");
        }
        traces.hand_over(|| [span("refused")]);
        assert!(has(&requests.recv().await.expect("a request"), "refused"));
        traces.hand_over(|| [span("third")]);
        let body = requests.recv().await.expect("a request");
        assert!(has(&body, "third") && !has(&body, "refused"), "{body:?}");
        stop.cancel();
        task.await.expect("no panic").expect("no error");
        assert!(requests.try_recv().is_err(), "nothing is sent twice");
    }

    #[tokio::test]
    async fn a_stop_sends_what_is_left() {
        let (url, mut requests) = listen(&[]).await;
        let Running { traces, stop, task } = start(url);
        traces.hand_over(|| [span("last")]);
        stop.cancel();
        task.await.expect("no panic").expect("no error");
        assert!(has(&requests.try_recv().expect("it was sent before the end"), "last"));
    }

    #[tokio::test]
    async fn a_collector_that_does_not_answer_holds_nobody() {
        // Connections are accepted by the system, and nobody answers.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let Running { traces, stop, task } = start(format!("http://{}/", listener.local_addr().expect("an address")));
        traces.hand_over(|| std::iter::repeat_with(|| span("many")).take(3 * QUEUE_MAX));
        stop.cancel();
        let begun = Instant::now();
        task.await.expect("no panic").expect("no error");
        assert!(begun.elapsed() < FLUSH * 2, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn without_an_endpoint_no_span_is_made() {
        Traces::default().hand_over(|| -> [Span; 0] { panic!("a span was made") });
    }
}
