//! Leader election on a thread of its own: however much work there is, it does not keep the lease from being renewed.

use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use tokio::{
    select,
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    process::{
        heartbeat::Heartbeat,
        lease::{Elector, Leadership, LeaseSettings},
        thread::OwnThread,
    },
};

/// Time between two heartbeats of the runtime that runs the work.
const BEAT: Duration = Duration::from_secs(1);

/// An [`Elector`] on a thread of its own.
pub struct LeaseThread {
    thread: OwnThread,
    elector: Elector,
    heartbeat: Heartbeat,
    /// Time that the process has to end by itself when the lease is lost.
    grace: Duration,
}

impl LeaseThread {
    /// Starts the thread. `client` creates the client of the elector, which belongs to the thread.
    ///
    /// Errors if the client cannot be created, or the operating system refuses a thread.
    pub(crate) fn start(
        settings: LeaseSettings,
        metrics: &Metrics,
        client: impl FnOnce() -> anyhow::Result<Client>,
    ) -> anyhow::Result<Self> {
        let thread = OwnThread::start("lease")?;
        let client = {
            let _of_thread = thread.enter();
            client()?
        };
        let heartbeat = Heartbeat::default();
        let grace = settings.lease_duration.saturating_sub(settings.renew_deadline);
        let elector = Elector::new(client, settings, metrics).with_heartbeat(heartbeat.clone());
        Ok(Self { thread, elector, heartbeat, grace })
    }

    /// The state and its changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.elector.leadership()
    }

    /// Acquires the lease, renews it until `stop` is cancelled, then releases it.
    ///
    /// Errors if the lease is lost. If the process has not ended before another one may lead, it is ended here: other
    /// threads that are busy may not learn of it in time.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { thread, elector, heartbeat, grace } = self;
        let (sender, mut ended) = oneshot::channel();
        thread.spawn(async move {
            let result = elector.run(stop).await;
            let lost = result.is_err();
            let _ = sender.send(result);
            if lost {
                sleep(grace).await;
                end_process();
            }
        });
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                result = &mut ended => return result.context("leader election has panicked")?,
                _ = beats.tick() => heartbeat.beat(),
            }
        }
    }
}

#[allow(clippy::exit, reason = "the threads that would end the process are busy")]
fn end_process() {
    tracing::error!("the process has lost its lease and does not end by itself, ending it");
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    /// Answers every request with an error, and sends a message for each.
    fn listen() -> (u16, std::sync::mpsc::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                if sender.send(()).is_err() {
                    return;
                }
            }
        });
        (port, receiver)
    }

    #[tokio::test]
    async fn the_elector_goes_on_while_all_other_threads_are_held() {
        let (port, requests) = listen();
        let settings =
            LeaseSettings { retry_period: Duration::from_millis(20), ..LeaseSettings::new("default", "test") };
        let metrics = Metrics::new("test", "0");
        let client = || {
            let config = kube::Config::new(format!("http://127.0.0.1:{port}").parse()?);
            Ok(crate::client::build(config, "test", crate::client::Limits::default(), &metrics)?)
        };
        let lease = LeaseThread::start(settings, &metrics, client).expect("thread");
        let stop = CancellationToken::new();
        let task = tokio::spawn(lease.run(stop.clone()));
        tokio::task::yield_now().await;
        // This holds the one thread of the test's runtime.
        for _ in 0..3 {
            requests.recv_timeout(Duration::from_secs(60)).expect("the elector asks meanwhile");
        }
        stop.cancel();
        task.await.expect("no panic").expect("no error");
    }
}
