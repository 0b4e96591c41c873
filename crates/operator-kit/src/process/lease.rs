//! Leader election on a `coordination.k8s.io/v1` Lease, by the protocol of client-go.
//!
//! * Every write is a compare-and-set on the resourceVersion.
//! * The lease of another process has expired when *this* process has seen it unchanged for its duration; clocks of
//!   different machines are never compared.
//! * A leader that could not renew within the renew deadline, which is shorter than the lease, stops leading.
//!
//! A lease does not fence: Kubernetes does not check it on other writes. Needs the rights `get` and `update` on the one
//! Lease, and `create`.

use std::{fmt, time::Duration};

use anyhow::bail;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    controller::{backoff::lengthened, error::Error},
    metrics::Metrics,
    process::heartbeat::Heartbeat,
    random::{random_u32, random_unit},
};

/// Name, identity and durations of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Name of this process as holder. Must be unique, also among restarts of one process.
    pub identity: String,
    /// Time for which other processes respect an unchanged lease. Whole seconds, at least 1.
    pub lease_duration: Duration,
    /// Time for which the leader works on without a successful renewal; less than `lease_duration`.
    pub renew_deadline: Duration,
    /// Time between two tries to acquire or renew; less than `renew_deadline`.
    pub retry_period: Duration,
}

impl LeaseSettings {
    /// client-go's durations (15 s, 10 s, 2 s) and an identity made of the host name (in a pod: the pod's name) and a
    /// random suffix.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    /// Sets the lease duration, and the other two in client-go's ratio to it. A longer lease tolerates a slower API
    /// server; after a crash of the leader it takes as long until another process leads.
    #[must_use]
    pub fn lasting(mut self, lease_duration: Duration) -> Self {
        self.lease_duration = lease_duration;
        self.renew_deadline = lease_duration * 10 / 15;
        self.retry_period = lease_duration * 2 / 15;
        self
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.lease_duration.as_secs() == 0 || self.lease_duration.subsec_nanos() != 0 {
            bail!("the lease duration must be whole seconds, at least 1");
        }
        if self.renew_deadline >= self.lease_duration || self.retry_period >= self.renew_deadline {
            bail!("lease settings must satisfy retry period < renew deadline < lease duration");
        }
        Ok(())
    }
}

/// Host name and a random suffix.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let host = host.or_else(|| std::fs::read_to_string("/etc/hostname").ok()).unwrap_or_else(|| "unknown".to_owned());
    format!("{}_{:08x}", host.trim(), random_u32())
}

/// The leader, as far as this process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Whether this process leads.
    pub leading: bool,
    /// Identity of the holder; `None` while the lease has none, or nothing is known.
    pub holder: Option<String>,
}

/// The lease as last seen, and since when it has been unchanged.
struct Observed {
    lease: Lease,
    since: Instant,
}

/// Acquires and renews the lease.
pub struct Elector {
    api: Api<Lease>,
    settings: LeaseSettings,
    metrics: Metrics,
    leadership: watch::Sender<Leadership>,
    observed: Option<Observed>,
    heartbeat: Option<Heartbeat>,
}

/// As long as one reconcile may take: a runtime that works does not stand still for this time.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Result of a try to acquire or renew.
enum Attempt {
    /// This process holds the lease, as of the start of the request.
    Held,
    /// Another process holds it.
    Foreign,
}

impl Elector {
    /// `client` should have [`Limits::lease`](crate::client::Limits::lease) and be used for nothing else, so that no
    /// other traffic delays a renewal.
    pub fn new(client: Client, settings: LeaseSettings, metrics: &Metrics) -> Self {
        metrics.leading(false);
        Self {
            api: Api::namespaced(client, &settings.namespace),
            settings,
            metrics: metrics.clone(),
            leadership: watch::Sender::default(),
            observed: None,
            heartbeat: None,
        }
    }

    /// Gives the lease up when there was no beat for a minute, or for the renew deadline if that is longer: then a process
    /// that is stuck does not keep the lease from the other replicas.
    #[must_use]
    pub(crate) fn with_heartbeat(self, heartbeat: Heartbeat) -> Self {
        Self { heartbeat: Some(heartbeat), ..self }
    }

    /// The state and its changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Acquires the lease, renews it until `stop` is cancelled, then releases it.
    ///
    /// Errors if the lease is lost. The process must exit then: requests that it has sent cannot be cancelled
    /// otherwise.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        self.settings.check()?;
        let Some(acquired) = stop.run_until_cancelled(self.acquire()).await else { return Ok(()) };
        tracing::info!(identity = self.settings.identity, lease = self.settings.name, "acquired the lease");
        let lost = stop.run_until_cancelled(self.renew(acquired)).await;
        self.metrics.leading(false);
        self.leadership.send_modify(|now| now.leading = false);
        if let Some(reason) = lost {
            bail!("lost the lease {}: {reason}", self.settings.name);
        }
        self.release().await;
        Ok(())
    }

    /// Returns the time of the request that acquired the lease.
    async fn acquire(&mut self) -> Instant {
        loop {
            let started = Instant::now();
            match self.limited_attempt().await {
                Ok(Attempt::Held) => {
                    self.publish(true);
                    return started;
                }
                Ok(Attempt::Foreign) => self.publish(false),
                Err(error) => tracing::warn!(%error, "cannot acquire the lease, trying again"),
            }
            // The jitter keeps candidates from staying in step.
            sleep(lengthened(self.settings.retry_period, random_unit())).await;
        }
    }

    /// Renews until that fails for good; returns why.
    async fn renew(&mut self, acquired: Instant) -> String {
        let mut last_held = acquired;
        loop {
            // Who sets a long lease wants a process that stands still for less to keep it.
            let limit = self.settings.renew_deadline.max(STUCK_AFTER);
            if self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.age() > limit) {
                return format!("the work has stood still for {} s", limit.as_secs());
            }
            let deadline = last_held + self.settings.renew_deadline;
            let tries = async {
                loop {
                    sleep(self.settings.retry_period).await;
                    let started = Instant::now();
                    match self.limited_attempt().await {
                        Ok(Attempt::Held) => return Some(started),
                        Ok(Attempt::Foreign) => return None,
                        Err(error) => tracing::warn!(%error, "cannot renew the lease, trying again"),
                    }
                }
            };
            match timeout_at(deadline, tries).await {
                Ok(Some(started)) => {
                    last_held = started;
                    self.publish(true);
                }
                Ok(None) => {
                    self.publish(false);
                    return format!("{} holds it now", Holder(self.leadership.borrow().holder.as_deref()));
                }
                Err(_) => return format!("not renewed for {} s", self.settings.renew_deadline.as_secs_f32()),
            }
        }
    }

    async fn limited_attempt(&mut self) -> Result<Attempt, Error> {
        // A third of the deadline: one unanswered request must not use up all tries.
        let limit = self.settings.renew_deadline / 3;
        timeout(limit, self.attempt())
            .await
            .unwrap_or_else(|_| Err(Error::transient(format!("no answer within {} s", limit.as_secs_f32()))))
    }

    /// One round of the protocol: read the lease unless it is known to be ours, then take or renew it if allowed.
    async fn attempt(&mut self) -> Result<Attempt, Error> {
        if let Some(ours) = self.observed.as_ref().filter(|seen| self.is_ours(&seen.lease)) {
            // The usual renewal is a single write. If it fails, the read below finds out why.
            let renewed = self.claimed(&ours.lease);
            match self.write(&renewed).await {
                Ok(()) => return Ok(Attempt::Held),
                Err(error) => tracing::debug!(%error, "reading the lease again"),
            }
        }
        let Some(lease) = self.api.get_opt(&self.settings.name).await? else {
            let mut fresh = Lease::default();
            fresh.metadata.name = Some(self.settings.name.clone());
            fresh.metadata.namespace = Some(self.settings.namespace.clone());
            let created = self.api.create(&PostParams::default(), &self.claimed(&fresh)).await?;
            self.observe(created);
            return Ok(Attempt::Held);
        };
        self.observe(lease);
        let Some(seen) = &self.observed else { return Ok(Attempt::Foreign) };
        let expired = holder(&seen.lease).is_none() || seen.since.elapsed() >= self.validity(&seen.lease);
        if self.is_ours(&seen.lease) || (expired && !self.leadership.borrow().leading) {
            let claimed = self.claimed(&seen.lease);
            self.write(&claimed).await?;
            return Ok(Attempt::Held);
        }
        Ok(Attempt::Foreign)
    }

    /// Replaces the lease if it is unchanged since it was read.
    async fn write(&mut self, lease: &Lease) -> Result<(), Error> {
        let stored = self.api.replace(&self.settings.name, &PostParams::default(), lease).await;
        match stored {
            Ok(stored) => {
                self.observe(stored);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn observe(&mut self, lease: Lease) {
        let version = &lease.metadata.resource_version;
        if self.observed.as_ref().is_none_or(|seen| seen.lease.metadata.resource_version != *version) {
            self.observed = Some(Observed { lease, since: Instant::now() });
        }
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        holder(lease) == Some(&self.settings.identity)
    }

    /// How long the lease is valid after a change: the duration in it, which the holder has set.
    fn validity(&self, lease: &Lease) -> Duration {
        let stated = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        stated.and_then(|seconds| u64::try_from(seconds).ok()).map_or(self.settings.lease_duration, Duration::from_secs)
    }

    /// The lease with this process as holder, renewed now. The times are for people; no process compares them.
    fn claimed(&self, lease: &Lease) -> Lease {
        let mut lease = lease.clone();
        let now = MicroTime(Timestamp::now());
        let ours = self.is_ours(&lease);
        let fresh = lease.spec.is_none();
        let spec = lease.spec.get_or_insert_default();
        if !ours {
            spec.acquire_time = Some(now.clone());
            let transitions = spec.lease_transitions.unwrap_or_default();
            spec.lease_transitions = Some(if fresh { 0 } else { transitions.saturating_add(1) });
        }
        spec.holder_identity = Some(self.settings.identity.clone());
        spec.lease_duration_seconds = i32::try_from(self.settings.lease_duration.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }

    /// Releases the lease, so that the next leader need not wait until it expires. After a failure it waits.
    async fn release(&mut self) {
        match timeout(self.settings.retry_period, self.try_release()).await {
            Ok(Ok(())) => tracing::info!(lease = self.settings.name, "released the lease"),
            Ok(Err(error)) => tracing::warn!(%error, "lease not released"),
            Err(_) => tracing::warn!("lease not released: no answer"),
        }
    }

    async fn try_release(&mut self) -> Result<(), Error> {
        // The stop may have cancelled a renewal that was carried out, so the known revision may be outdated.
        self.observed = None;
        if let Some(lease) = self.api.get_opt(&self.settings.name).await?.filter(|lease| self.is_ours(lease)) {
            let now = MicroTime(Timestamp::now());
            let mut released = lease;
            released.spec = Some(LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                renew_time: Some(now.clone()),
                acquire_time: Some(now),
                lease_transitions: released.spec.and_then(|spec| spec.lease_transitions),
                ..LeaseSpec::default()
            });
            self.write(&released).await?;
        }
        Ok(())
    }

    fn publish(&self, leading: bool) {
        self.metrics.leading(leading);
        let lease = self.observed.as_ref().map(|seen| &seen.lease);
        let holder = lease.and_then(holder).map(ToOwned::to_owned);
        if self.leadership.borrow().holder != holder {
            tracing::info!(holder = %Holder(holder.as_deref()), "lease holder changed");
        }
        self.leadership.send_replace(Leadership { leading, holder });
    }
}

struct Holder<'a>(Option<&'a str>);

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.unwrap_or("nobody"))
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::Limits,
        testing::{Link, Server},
    };
    use serde_json::json;
    use std::sync::atomic::Ordering;

    fn holder_at(server: &Server) -> String {
        let stored = server.get("lease");
        stored.as_ref().and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or_default().to_owned()
    }

    fn put(server: &Server, holder: &str, renewed: &str) {
        server.put(&json!({
            "metadata": {"name": "lease"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}
        }));
    }

    fn slow_link() -> Link {
        Link { latency: Duration::from_millis(20), ..Link::default() }
    }

    fn candidate(server: &Server, identity: &str, link: &Link) -> Elector {
        let metrics = Metrics::new("test", "0");
        let settings = LeaseSettings { identity: identity.into(), ..LeaseSettings::new("default", "lease") };
        let client = server.client_over(link, Limits::lease(settings.renew_deadline), &metrics);
        Elector::new(client, settings, &metrics)
    }

    struct Candidate {
        leadership: watch::Receiver<Leadership>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<anyhow::Result<()>>,
    }

    fn start(elector: Elector) -> Candidate {
        let stop = CancellationToken::new();
        let leadership = elector.leadership();
        Candidate { leadership, task: tokio::spawn(elector.run(stop.clone())), stop }
    }

    impl Candidate {
        async fn until_leading(&mut self) {
            self.leadership.wait_for(|now| now.leading).await.expect("elector runs");
        }

        fn leads(&self) -> bool {
            self.leadership.borrow().leading
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_lease_passes_on_at_once() {
        let server = Server::default();
        let mut first = start(candidate(&server, "first", &slow_link()));
        first.until_leading().await;
        let mut second = start(candidate(&server, "second", &slow_link()));
        sleep(Duration::from_mins(5)).await;
        assert!(first.leads() && !second.leads(), "renewal keeps the lease");
        assert_eq!(second.leadership.borrow().holder.as_deref(), Some("first"));

        first.stop.cancel();
        first.task.await.expect("no panic").expect("a stop is no loss");
        let released = Instant::now();
        second.until_leading().await;
        assert!(released.elapsed() < Duration::from_secs(4), "{:?}", released.elapsed());
        assert_eq!(server.get("lease").expect("stored")["spec"]["leaseTransitions"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_work_stands_still_gives_up() {
        let server = Server::default();
        let heartbeat = Heartbeat::default();
        let mut first = start(candidate(&server, "first", &slow_link()).with_heartbeat(heartbeat.clone()));
        first.until_leading().await;
        for _ in 0..120 {
            sleep(Duration::from_secs(1)).await;
            heartbeat.beat();
        }
        assert!(first.leads(), "it beats");
        let stood_still = Instant::now();
        let error = first.task.await.expect("no panic").expect_err("lost");
        assert!(error.to_string().contains("stood still"), "{error}");
        assert!(stood_still.elapsed() < Duration::from_secs(65), "{:?}", stood_still.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_cut_off_gives_up_before_anyone_follows() {
        let server = Server::default();
        let link = slow_link();
        let mut first = start(candidate(&server, "first", &link));
        first.until_leading().await;
        let mut second = start(candidate(&server, "second", &slow_link()));
        sleep(Duration::from_secs(31)).await;
        link.cut.store(true, Ordering::Relaxed);
        let cut = Instant::now();
        let valid_until = server.written().expect("renewed") - link.latency + Duration::from_secs(10);

        let error = first.task.await.expect("no panic").expect_err("lost");
        assert!(error.to_string().contains("not renewed for 10 s"), "{error}");
        assert!(Instant::now() <= valid_until + Duration::from_millis(10), "not beyond what it promised");
        assert!(cut.elapsed() <= Duration::from_secs(10));
        assert!(!second.leads());
        second.until_leading().await;
        assert!(cut.elapsed() > Duration::from_secs(12) && cut.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_does_not_cost_the_lease() {
        let server = Server::default();
        let link = slow_link();
        let mut first = start(candidate(&server, "first", &link));
        first.until_leading().await;
        link.answers_lost.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(4)).await;
        link.answers_lost.store(false, Ordering::Relaxed);
        sleep(Duration::from_mins(1)).await;
        assert!(first.leads() && !first.task.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_lease_was_taken_is_lost() {
        let server = Server::default();
        let mut first = start(candidate(&server, "first", &slow_link()));
        first.until_leading().await;
        put(&server, "usurper", "2020-01-01T00:00:00.000000Z");
        let error = first.task.await.expect("no panic").expect_err("lost");
        assert!(error.to_string().contains("usurper holds it now"), "{error}");
        assert_eq!(holder_at(&server), "usurper");
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_are_not_compared() {
        let server = Server::default();
        put(&server, "other", "1990-01-01T00:00:00.000000Z");
        let begun = Instant::now();
        let mut first = start(candidate(&server, "first", &slow_link()));
        first.until_leading().await;
        assert!(begun.elapsed() >= Duration::from_secs(15), "an old time stamp is no proof of expiry");
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_candidates_one_leads() {
        let server = Server::default();
        let candidates: Vec<_> = (0..8).map(|n| start(candidate(&server, &n.to_string(), &slow_link()))).collect();
        for _ in 0..100 {
            sleep(Duration::from_millis(700)).await;
            assert!(candidates.iter().filter(|candidate| candidate.leads()).count() <= 1);
        }
        assert_eq!(candidates.iter().filter(|candidate| candidate.leads()).count(), 1);
    }

    #[test]
    fn settings_that_cannot_hold_are_refused() {
        let good = LeaseSettings::new("default", "lease");
        assert!(good.check().is_ok());
        assert!(LeaseSettings { renew_deadline: good.lease_duration, ..good.clone() }.check().is_err());
        assert!(LeaseSettings { lease_duration: Duration::from_millis(1500), ..good }.check().is_err());
        assert_ne!(identity(), identity());
    }
}
