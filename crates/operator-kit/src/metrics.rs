//! Metrics in the OpenMetrics text format. No label names an object, so the number of series is bounded.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabel {
    watch: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    code: &'static str,
}

/// The metrics of the process. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    reconciles: Family<ReconcileLabels, Counter>,
    duration: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    in_flight: Family<ControllerLabel, Gauge>,
    backing_off: Family<ControllerLabel, Gauge>,
    panics: Family<ControllerLabel, Counter>,
    watch_errors: Family<WatchLabel, Counter>,
    undecodable: Family<WatchLabel, Counter>,
    requests: Family<RequestLabels, Counter>,
    leader: Gauge,
}

/// 5 ms to 82 s: from a reconcile that has nothing to do to one that exceeds its time limit.
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 15))
}

impl Metrics {
    /// All series, at zero, with `build_info` for the named operator and version.
    pub fn new(operator: &'static str, version: &'static str) -> Self {
        let metrics = Self {
            registry: Arc::default(),
            reconciles: Family::default(),
            duration: Family::new_with_constructor(duration_histogram),
            in_flight: Family::default(),
            backing_off: Family::default(),
            panics: Family::default(),
            watch_errors: Family::default(),
            undecodable: Family::default(),
            requests: Family::default(),
            leader: Gauge::default(),
        };
        metrics.register(|r| {
            r.register("build", "Name and version", Info::new(vec![("operator", operator), ("version", version)]));
            r.register("reconciles", "Reconciles by result", metrics.reconciles.clone());
            r.register_with_unit(
                "reconcile_duration",
                "Time from the start of a reconcile to its end",
                Unit::Seconds,
                metrics.duration.clone(),
            );
            r.register("reconciles_in_flight", "Reconciles that run now", metrics.in_flight.clone());
            r.register("objects_backing_off", "Objects whose last reconcile failed", metrics.backing_off.clone());
            r.register("reconcile_panics", "Reconciles that panicked", metrics.panics.clone());
            r.register("watch_errors", "Errors of list and watch", metrics.watch_errors.clone());
            r.register("watch_undecodable_objects", "Objects skipped by a watch", metrics.undecodable.clone());
            r.register("api_requests", "Requests by verb and class of the answer", metrics.requests.clone());
            r.register("leader", "1 while this process holds the lease", metrics.leader.clone());
        });
        metrics
    }

    fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All series in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }

    /// Counts a reconcile as running until the guard is dropped, as it is when the reconcile is aborted.
    pub(crate) fn reconcile_started(&self, controller: &'static str) -> InFlight {
        let gauge = self.in_flight.get_or_create_owned(&ControllerLabel { controller });
        gauge.inc();
        InFlight(gauge)
    }

    pub(crate) fn reconcile_ended(&self, controller: &'static str, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ReconcileLabels { controller, result }).inc();
        self.duration.get_or_create(&ControllerLabel { controller }).observe(took.as_secs_f64());
    }

    pub(crate) fn panicked(&self, controller: &'static str) {
        self.panics.get_or_create(&ControllerLabel { controller }).inc();
    }

    pub(crate) fn backing_off(&self, controller: &'static str, objects: usize) {
        self.backing_off.get_or_create(&ControllerLabel { controller }).set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    pub(crate) fn watch_failed(&self, watch: &'static str) {
        self.watch_errors.get_or_create(&WatchLabel { watch }).inc();
    }

    pub(crate) fn object_undecodable(&self, watch: &'static str) {
        self.undecodable.get_or_create(&WatchLabel { watch }).inc();
    }

    pub(crate) fn request_ended(&self, verb: &'static str, code: &'static str) {
        self.requests.get_or_create(&RequestLabels { verb, code }).inc();
    }

    pub(crate) fn leading(&self, leading: bool) {
        self.leader.set(i64::from(leading));
    }
}

/// See [`Metrics::reconcile_started`].
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_encoded() {
        let metrics = Metrics::new("test-operator", "1.2.3");
        let guard = metrics.reconcile_started("c");
        assert!(metrics.encode().expect("text").contains("reconciles_in_flight{controller=\"c\"} 1"));
        drop(guard);
        metrics.reconcile_ended("c", "done", Duration::from_millis(7));
        let text = metrics.encode().expect("text");
        for line in [
            "build_info{operator=\"test-operator\",version=\"1.2.3\"} 1",
            "reconciles_in_flight{controller=\"c\"} 0",
            "reconciles_total{controller=\"c\",result=\"done\"} 1",
            "reconcile_duration_seconds_count{controller=\"c\"} 1",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
