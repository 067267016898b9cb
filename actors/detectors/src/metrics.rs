//! What a detector shows of itself.

use prometheus::{IntCounter, IntGauge, Opts, Registry, core::Collector};

use crate::Counts;

/// The metrics of one detector. Clones are the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    matched: IntCounter,
    held_back: IntCounter,
    ignored: IntCounter,
    damaged: IntCounter,
    evicted: IntCounter,
    unreadable: IntCounter,
    open: IntGauge,
    bytes: IntGauge,
    compiled: IntGauge,
}

impl Metrics {
    /// The metrics of the module `id`, shown nowhere yet.
    pub(crate) fn new(id: &'static str) -> Result<Metrics, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("opspilot_{}_{name}", id.replace('.', "_")), help);
        Ok(Metrics {
            matched: IntCounter::with_opts(opts("observations_total", "Signals that concerned a rule."))?,
            held_back: IntCounter::with_opts(opts("held_back_total", "Matches that a cap on new alerts held back."))?,
            ignored: IntCounter::with_opts(opts(
                "ignored_total",
                "Signals left out: too late, no number, or a resolve of something unknown.",
            ))?,
            damaged: IntCounter::with_opts(opts("damaged_total", "Stored signals that could not be read."))?,
            evicted: IntCounter::with_opts(opts("evicted_total", "Alerts or series that had to go because there were too many."))?,
            unreadable: IntCounter::with_opts(opts("state_unreadable_total", "Pieces of stored state that were left out at a start."))?,
            open: IntGauge::with_opts(opts("followed", "Alerts or series that are followed now."))?,
            bytes: IntGauge::with_opts(opts("followed_bytes", "Bytes of names and labels of what is followed now."))?,
            compiled: IntGauge::with_opts(opts("compiled_patterns", "Patterns that have been compiled so far."))?,
        })
    }

    /// Shows them; those of an earlier start of the module are taken out.
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 9] = [
            Box::new(self.matched.clone()),
            Box::new(self.held_back.clone()),
            Box::new(self.ignored.clone()),
            Box::new(self.damaged.clone()),
            Box::new(self.evicted.clone()),
            Box::new(self.unreadable.clone()),
            Box::new(self.open.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.compiled.clone()),
        ];
        let former = [&self.matched, &self.held_back, &self.ignored, &self.damaged, &self.evicted, &self.unreadable];
        former.into_iter().for_each(|counter| drop(registry.unregister(Box::new(counter.clone()))));
        [&self.open, &self.bytes, &self.compiled].into_iter().for_each(|gauge| drop(registry.unregister(Box::new(gauge.clone()))));
        all.into_iter().try_for_each(|collector| registry.register(collector))
    }

    /// A piece of stored state was left out.
    pub(crate) fn unreadable(&self) {
        self.unreadable.inc();
    }

    /// Adds what was counted since `before`.
    pub(crate) fn tell(&self, before: &Counts, now: &Counts) {
        for (counter, before, now) in [
            (&self.matched, before.matched, now.matched),
            (&self.held_back, before.held_back, now.held_back),
            (&self.ignored, before.ignored, now.ignored),
            (&self.damaged, before.damaged, now.damaged),
            (&self.evicted, before.evicted, now.evicted),
        ] {
            if now > before {
                counter.inc_by(now - before);
            }
        }
        self.open.set(i64::try_from(now.open).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(now.bytes).unwrap_or(i64::MAX));
        self.compiled.set(i64::try_from(now.compiled).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_started_again_shows_its_metrics_again() {
        let registry = Registry::new();
        for round in 1..=2 {
            let metrics = Metrics::new("detector.test").unwrap();
            metrics.register(&registry).unwrap();
            metrics.tell(&Counts::default(), &Counts { matched: round, open: 3, ..Counts::default() });
            let shown = registry.gather();
            let value = shown.iter().find(|family| family.name() == "opspilot_detector_test_observations_total").unwrap();
            assert_eq!(value.get_metric()[0].get_counter().get_value(), f64::from(u32::try_from(round).unwrap()));
            assert_eq!(shown.len(), 9);
        }
    }
}
