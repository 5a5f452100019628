//! Keeps what is counted on this thread.

use std::collections::BTreeMap;

use metrics::LocalRecorderGuard;
use metrics_util::{
    CompositeKey,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};

/// All that was counted through one recorder.
pub(crate) struct Recorded {
    /// Leaked: guards of it live as long as they like.
    recorder: &'static DebuggingRecorder,
    snapshotter: Snapshotter,
    /// A snapshot takes what it shows; this is the sum of all.
    sums: BTreeMap<String, f64>,
    descriptions: BTreeMap<String, String>,
}

impl Recorded {
    pub(crate) fn new() -> Self {
        let recorder: &DebuggingRecorder = Box::leak(Box::new(DebuggingRecorder::new()));
        let snapshotter = recorder.snapshotter();
        Self { recorder, snapshotter, sums: BTreeMap::new(), descriptions: BTreeMap::new() }
    }

    /// Records what is built on this thread while the guard lives.
    pub(crate) fn record(&self) -> LocalRecorderGuard<'static> {
        metrics::set_default_local_recorder(self.recorder)
    }

    /// The series with their values, each as Prometheus writes it.
    pub(crate) fn series(&mut self) -> &BTreeMap<String, f64> {
        for (key, unit, description, value) in self.snapshotter.snapshot().into_vec() {
            let value = match value {
                DebugValue::Counter(value) => value as f64,
                DebugValue::Gauge(value) => value.into_inner(),
                DebugValue::Histogram(_) => panic!("a histogram: {key:?}"),
            };
            assert!(unit.is_some(), "no unit: {key:?}");
            self.descriptions.insert(key.key().name().to_owned(), description.expect("a description").into_owned());
            *self.sums.entry(name(&key)).or_default() += value;
        }
        &self.sums
    }

    /// Those that are not 0 and whose name begins so.
    pub(crate) fn counted(&mut self, begin: &str) -> BTreeMap<String, f64> {
        let series = self.series().iter().filter(|(name, value)| name.starts_with(begin) && **value != 0.0);
        series.map(|(name, value)| (name.clone(), *value)).collect()
    }

    /// The sum of all that begin so.
    pub(crate) fn sum(&mut self, begin: &str) -> f64 {
        self.counted(begin).values().sum()
    }

    /// By name, what the recorder was told of it.
    pub(crate) fn descriptions(&mut self) -> &BTreeMap<String, String> {
        self.series();
        &self.descriptions
    }
}

fn name(key: &CompositeKey) -> String {
    let mut labels: Vec<_> = key.key().labels().map(|label| format!("{}={:?}", label.key(), label.value())).collect();
    labels.sort();
    format!("{}{{{}}}", key.key().name(), labels.join(","))
}
