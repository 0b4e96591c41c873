//! The queue between the reconciles, which must not wait, and the exporter.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use crate::traces::span::Span;

/// Most spans that wait to be sent; OpenTelemetry's default.
pub(super) const QUEUE_MAX: usize = 2_048;

/// Where spans are handed over; clones share one queue. By default there is none, and no span is made.
#[derive(Clone, Default)]
pub struct Traces(Option<Sender>);

#[derive(Clone)]
struct Sender {
    queue: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
}

/// The other end of [`Traces`].
pub(super) struct Receiver {
    pub(super) queue: mpsc::Receiver<Span>,
    /// Spans that found the queue full.
    pub(super) dropped: Arc<AtomicU64>,
}

impl Traces {
    /// A queue, and its other end.
    pub(super) fn new() -> (Self, Receiver) {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        (Self(Some(Sender { queue: sender, dropped: Arc::clone(&dropped) })), Receiver { queue, dropped })
    }

    /// Hands over the spans that `ended` returns, which is called only if traces are on. Never waits: what finds the queue
    /// full is dropped, and counted.
    pub fn hand_over<I: IntoIterator<Item = Span>>(&self, ended: impl FnOnce() -> I) {
        let Some(Sender { queue, dropped }) = &self.0 else { return };
        for span in ended() {
            if queue.try_send(span).is_err() {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
