//! Metrics of a process, in the OpenMetrics and the Prometheus text format. No label names an object, so the number of
//! series is bounded.
//!
//! Every name begins with the name of the operator, except those of the process (`process_…`), which are the same for
//! all programs.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text::encode},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Metric, Registry},
};

use crate::process::usage;

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
    registered: Arc<Mutex<Registered>>,
    reconciles: Family<ReconcileLabels, Counter>,
    duration: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    in_flight: Family<ControllerLabel, Gauge>,
    backing_off: Family<ControllerLabel, Gauge>,
    panics: Family<ControllerLabel, Counter>,
    watch_errors: Family<WatchLabel, Counter>,
    undecodable: Family<WatchLabel, Gauge>,
    requests: Family<RequestLabels, Counter>,
    leader: Gauge,
}

/// What is registered.
struct Registered {
    /// Before each name but those of the process.
    prefix: String,
    registry: Registry,
    names: Vec<String>,
}

/// Labels, each with its value, and the value of the metric for them.
pub type Sample<const N: usize> = ([(&'static str, &'static str); N], f64);

/// Counts `found` by the values that `label` can have: a sample for each of them, also if there is none of it. Whatever is
/// not among `known` counts as `Other`, so that texts from objects do not add series.
pub fn count_by<'a>(
    label: &'static str,
    known: &[&'static str],
    found: impl IntoIterator<Item = &'a str>,
) -> Vec<Sample<1>> {
    let mut counts = vec![0.0; known.len()];
    let mut others = 0.0;
    for value in found {
        match known.iter().position(|known| *known == value) {
            Some(position) => counts[position] += 1.0,
            None => others += 1.0,
        }
    }
    let known = known.iter().copied().zip(counts);
    let all = known.chain((others > 0.0).then_some(("Other", others)));
    all.map(|(value, count)| ([(label, value)], count)).collect()
}

/// Counts `found`: one sample, without labels.
pub fn count_all<T>(found: impl IntoIterator<Item = T>) -> Vec<Sample<0>> {
    vec![([], found.into_iter().map(|_| 1.0).sum::<f64>())]
}

/// 5 ms to 82 s: from a reconcile that has nothing to do to one that exceeds its time limit.
fn reconcile_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 15))
}

impl Metrics {
    /// All series, at zero, with `build_info` for the named operator and version. Names begin with that of the operator
    /// without `-operator`.
    pub fn new(operator: &'static str, version: &'static str) -> Self {
        let prefix = operator.trim_end_matches("-operator").replace('-', "_");
        let registered = Registered { prefix, registry: Registry::default(), names: Vec::new() };
        let metrics = Self {
            registered: Arc::new(Mutex::new(registered)),
            reconciles: Family::default(),
            duration: Family::new_with_constructor(reconcile_histogram),
            in_flight: Family::default(),
            backing_off: Family::default(),
            panics: Family::default(),
            watch_errors: Family::default(),
            undecodable: Family::default(),
            requests: Family::default(),
            leader: Gauge::default(),
        };
        let build = Info::new(vec![("operator", operator), ("version", version)]);
        metrics.register("build", "Name and version", build);
        metrics.register("leader", "1 while this process holds the lease", metrics.leader.clone());
        metrics.register("reconciles", "Reconciles by result", metrics.reconciles.clone());
        let duration = "Time from the start of a reconcile to its end";
        metrics.register("reconcile_duration_seconds", duration, metrics.duration.clone());
        metrics.register("reconciles_in_flight", "Reconciles that run now", metrics.in_flight.clone());
        metrics.register("objects_backing_off", "Objects whose last reconcile failed", metrics.backing_off.clone());
        metrics.register("reconcile_panics", "Reconciles that panicked", metrics.panics.clone());
        metrics.register("watch_errors", "Errors of list and watch", metrics.watch_errors.clone());
        let undecodable = "Objects that a watch cannot read now, and leaves out";
        metrics.register("watch_undecodable_objects", undecodable, metrics.undecodable.clone());
        metrics.register("api_requests", "Requests by verb and class of the answer", metrics.requests.clone());
        metrics.register_process();
        metrics
    }

    /// Registers a metric under this name, which the prefix is put before. `_total` of a counter is no part of the name.
    pub fn register(&self, name: &'static str, help: &'static str, metric: impl Metric) {
        let name = format!("{}_{name}", self.registered().prefix);
        self.add(name, help, metric);
    }

    /// As [`Metrics::register`], a gauge whose values are computed whenever the metrics are read. That is done on a thread
    /// of its own, so `samples` may go through all objects.
    pub fn register_computed<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        samples: impl Fn() -> Vec<Sample<N>> + Send + Sync + 'static,
    ) {
        self.register(name, help, Computed { type_: MetricType::Gauge, samples: Box::new(samples) });
    }

    /// The names are those that other programs have for the same.
    fn register_process(&self) {
        type Read = fn() -> Option<f64>;
        let all: [(&'static str, &'static str, MetricType, Read); 4] = [
            ("process_cpu_seconds", "Processor time that was used", MetricType::Counter, usage::cpu_seconds),
            ("process_resident_memory_bytes", "Resident memory", MetricType::Gauge, usage::resident_bytes),
            ("process_open_fds", "Open file descriptors", MetricType::Gauge, usage::open_files),
            ("process_start_time_seconds", "Start, in seconds since 1970", MetricType::Gauge, usage::start_seconds),
        ];
        for (name, help, type_, read) in all {
            let samples = move || -> Vec<Sample<0>> { read().map(|value| ([], value)).into_iter().collect() };
            self.add(name.to_owned(), help, Computed::<0> { type_, samples: Box::new(samples) });
        }
    }

    fn add(&self, name: String, help: &'static str, metric: impl Metric) {
        let suffix = suffix(metric.metric_type().as_str());
        let mut all = self.registered();
        all.names.push(format!("{name}{suffix}"));
        all.registry.register(name, help, metric);
    }

    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of all metrics, as queries have them; those of a histogram without `_bucket`, `_count` and `_sum`.
    pub fn names(&self) -> Vec<String> {
        self.registered().names.clone()
    }

    /// All series in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registered().registry)?;
        Ok(text)
    }

    /// All series in the text format of Prometheus, which every scraper reads.
    pub fn encode_for_prometheus(&self) -> Result<String, fmt::Error> {
        to_prometheus(&self.encode()?)
    }

    /// Counts a reconcile as running until the guard is dropped, as it is when the reconcile is aborted.
    pub(crate) fn reconcile_started(&self, controller: &'static str) -> Counted {
        Counted::new(self.in_flight.get_or_create_owned(&ControllerLabel { controller }))
    }

    pub(crate) fn reconcile_ended(&self, controller: &'static str, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ReconcileLabels { controller, result }).inc();
        self.duration.get_or_create(&ControllerLabel { controller }).observe(took.as_secs_f64());
    }

    /// A controller with this name exists: its counter is there before there is anything to count, so that the first
    /// panic is seen as an increase.
    pub(crate) fn controller_added(&self, controller: &'static str) {
        self.panics.get_or_create_owned(&ControllerLabel { controller });
        self.backing_off(controller, 0);
    }

    pub(crate) fn panicked(&self, controller: &'static str) {
        self.panics.get_or_create(&ControllerLabel { controller }).inc();
    }

    pub(crate) fn backing_off(&self, controller: &'static str, objects: usize) {
        self.backing_off.get_or_create(&ControllerLabel { controller }).set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// As [`Metrics::controller_added`].
    pub(crate) fn watch_added(&self, watch: &'static str) {
        self.watch_errors.get_or_create_owned(&WatchLabel { watch });
        self.undecodable.get_or_create_owned(&WatchLabel { watch });
    }

    pub(crate) fn watch_failed(&self, watch: &'static str) {
        self.watch_errors.get_or_create(&WatchLabel { watch }).inc();
    }

    /// Counts an object that the watch cannot decode, until the guard is dropped: with its watch at the latest, as several may
    /// have one name, and come and go.
    pub(crate) fn object_undecodable(&self, watch: &'static str) -> Counted {
        Counted::new(self.undecodable.get_or_create_owned(&WatchLabel { watch }))
    }

    pub(crate) fn request_ended(&self, verb: &'static str, code: &'static str) {
        self.requests.get_or_create(&RequestLabels { verb, code }).inc();
    }

    pub(crate) fn leading(&self, leading: bool) {
        self.leader.set(i64::from(leading));
    }
}

/// What a gauge counts until this is dropped.
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A metric whose values are computed whenever it is read.
struct Computed<const N: usize> {
    type_: MetricType,
    samples: Box<dyn Fn() -> Vec<Sample<N>> + Send + Sync>,
}

impl<const N: usize> fmt::Debug for Computed<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computed").field("type_", &self.type_).finish_non_exhaustive()
    }
}

impl<const N: usize> Computed<N> {
    fn encode_value(&self, encoder: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
        match self.type_ {
            MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
            _ => encoder.encode_gauge(&value),
        }
    }
}

impl<const N: usize> EncodeMetric for Computed<N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, value) in (self.samples)() {
            if N == 0 {
                // An empty set of labels would be written as `{}`.
                self.encode_value(&mut encoder, value)?;
            } else {
                self.encode_value(&mut encoder.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.type_
    }
}

/// What OpenMetrics appends to the name of a metric of this type in each of its samples.
fn suffix(type_: &str) -> &'static str {
    match type_ {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    }
}

/// The text format of Prometheus (0.0.4) from that of OpenMetrics. The samples are the same. A metric has the name of its
/// samples, there is no type `info`, and there are no lines of other kinds.
fn to_prometheus(open_metrics: &str) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described;
        } else if let Some((name, type_)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let suffix = suffix(type_);
            let help = help.strip_prefix(name).unwrap_or_default();
            let type_ = if type_ == "info" { "gauge" } else { type_ };
            writeln!(text, "# HELP {name}{suffix}{help}\n# TYPE {name}{suffix} {type_}")?;
        } else if !line.starts_with('#') {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_encoded() {
        let metrics = Metrics::new("test-operator", "1.2.3");
        let guard = metrics.reconcile_started("c");
        assert!(metrics.encode().expect("text").contains("test_reconciles_in_flight{controller=\"c\"} 1"));
        drop(guard);
        metrics.reconcile_ended("c", "done", Duration::from_millis(7));
        let text = metrics.encode().expect("text");
        for line in [
            "test_build_info{operator=\"test-operator\",version=\"1.2.3\"} 1\n",
            "test_reconciles_in_flight{controller=\"c\"} 0\n",
            "test_reconciles_total{controller=\"c\",result=\"done\"} 1\n",
            "test_reconcile_duration_seconds_count{controller=\"c\"} 1\n",
            "# EOF\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn both_formats_have_the_same_samples_and_each_its_own_types() {
        let metrics = Metrics::new("test", "0");
        metrics.reconcile_ended("c", "done", Duration::from_millis(7));
        let samples =
            |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        let text = "# HELP a_b A b.\n# TYPE a_b counter\n# UNIT a_b b\na_b_total{c=\"d\"} 1\n# EOF\n";
        let expected = "# HELP a_b_total A b.\n# TYPE a_b_total counter\na_b_total{c=\"d\"} 1\n";
        assert_eq!(to_prometheus(text).as_deref(), Ok(expected));

        let open_metrics = metrics.encode().expect("text");
        let prometheus = to_prometheus(&open_metrics).expect("text");
        assert_eq!(samples(&prometheus), samples(&open_metrics));
        for line in ["# TYPE test_build info\n", "# TYPE test_reconciles counter\n"] {
            assert!(open_metrics.contains(line), "{line} in {open_metrics}");
        }
        for line in [
            "# HELP test_build_info Name and version.\n# TYPE test_build_info gauge\ntest_build_info{",
            "# TYPE test_reconciles_total counter\ntest_reconciles_total{",
            "# TYPE test_reconcile_duration_seconds histogram\n",
            "# TYPE test_leader gauge\ntest_leader 0\n",
        ] {
            assert!(prometheus.contains(line), "{line} in {prometheus}");
        }
        let name_of = |line: &str| line.split(' ').nth(2).map(str::to_owned);
        let typed: Vec<_> = prometheus.lines().filter(|line| line.starts_with("# TYPE ")).filter_map(name_of).collect();
        let names = metrics.names();
        assert!(typed.iter().all(|name| names.contains(name)), "{typed:?} among {names:?}");
    }

    #[test]
    fn computed_values_are_those_of_the_moment() {
        let metrics = Metrics::new("test", "0");
        let found = Arc::new(Mutex::new(vec!["a", "b", "a"]));
        let now = Arc::clone(&found);
        metrics.register_computed("things", "Things by kind", move || {
            count_by("kind", &["a", "b", "c"], now.lock().expect("no panic").iter().copied())
        });
        metrics.register_computed("date_seconds", "None", Vec::<Sample<0>>::new);
        let text = metrics.encode_for_prometheus().expect("text");
        let things = "# TYPE test_things gauge\ntest_things{kind=\"a\"} 2.0\ntest_things{kind=\"b\"} 1.0\n\
            test_things{kind=\"c\"} 0.0\n#";
        assert!(text.contains(things), "{text}");
        assert!(text.ends_with("# TYPE test_date_seconds gauge\n"), "{text}");
        found.lock().expect("no panic").push("x\ny");
        let text = metrics.encode().expect("text");
        assert!(text.contains("test_things{kind=\"Other\"} 1.0\n"), "texts of objects are no labels: {text}");
        assert!(metrics.names().iter().any(|name| name == "test_date_seconds"));
    }

    #[test]
    fn series_are_there_before_anything_is_counted() {
        let metrics = Metrics::new("test", "0");
        metrics.controller_added("c");
        metrics.watch_added("w");
        let text = metrics.encode().expect("text");
        for line in [
            "test_reconcile_panics_total{controller=\"c\"} 0\n",
            "test_objects_backing_off{controller=\"c\"} 0\n",
            "test_watch_errors_total{watch=\"w\"} 0\n",
            "test_watch_undecodable_objects{watch=\"w\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
