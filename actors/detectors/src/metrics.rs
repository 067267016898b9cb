//! What a detector shows of itself.

use prometheus::{IntCounter, IntGauge, Opts, Registry, core::Collector};

use crate::Counts;

/// The metrics of one detector. Clones are the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Each with what of the counts it adds up.
    counters: Vec<(IntCounter, Total)>,
    gauges: Vec<(IntGauge, Level)>,
    unreadable: IntCounter,
    relearned: IntCounter,
    lost: IntCounter,
}

type Total = fn(&Counts) -> u64;
type Level = fn(&Counts) -> usize;
type Counter = (&'static str, &'static str, Total);
type Gauge = (&'static str, &'static str, Level);

const COUNTERS: [Counter; 13] = [
    ("observations_total", "Signals that concerned a rule.", |counts| counts.matched),
    ("held_back_total", "Matches that a cap on new alerts held back.", |counts| counts.held_back),
    ("ignored_total", "Signals left out: too late, no number, or a resolve of something unknown.", |counts| counts.ignored),
    ("damaged_total", "Stored signals that could not be read.", |counts| counts.damaged),
    ("evicted_total", "Alerts or series that had to go because there were too many.", |counts| counts.evicted),
    ("put_away_total", "Series that left memory; what is known of them is stored.", |counts| counts.put_away),
    ("taken_back_total", "Series that returned and were taken up where they were left.", |counts| counts.taken_back),
    ("forgotten_total", "Series forgotten: silent for too long, or for longest when there were too many.", |counts| counts.forgotten),
    ("bases_total", "Large pieces of state that were written.", |counts| counts.bases),
    ("late_total", "Values that came out of order.", |counts| counts.late),
    ("repeated_total", "Values for a time that already had one.", |counts| counts.repeated),
    ("crowded_total", "Values that came to a full window: older ones were joined or left early.", |counts| counts.crowded),
    ("ahead_total", "Values whose time lay ahead: they count as of their receipt.", |counts| counts.ahead),
];

const GAUGES: [Gauge; 5] = [
    ("followed", "Alerts or series that are followed now.", |counts| counts.open),
    ("followed_bytes", "Bytes of what is followed now, by which it is bounded.", |counts| counts.bytes),
    ("shelved", "Series whose state is stored and not in memory.", |counts| counts.shelved),
    ("compiled_patterns", "Patterns that have been compiled so far.", |counts| counts.compiled),
    ("pattern_bytes", "Bytes of patterns and their literals, in memory.", |counts| counts.pattern_bytes),
];

impl Metrics {
    /// The metrics of the module `id`, shown nowhere yet.
    pub(crate) fn new(id: &'static str) -> Result<Metrics, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("opspilot_{}_{name}", id.replace('.', "_")), help);
        let counter = |name: &str, help: &str| IntCounter::with_opts(opts(name, help));
        let counters =
            COUNTERS.into_iter().map(|(name, help, of)| Ok((counter(name, help)?, of))).collect::<Result<_, prometheus::Error>>()?;
        let gauges = GAUGES.into_iter().map(|(name, help, of)| Ok((IntGauge::with_opts(opts(name, help))?, of)));
        Ok(Metrics {
            counters,
            gauges: gauges.collect::<Result<_, prometheus::Error>>()?,
            unreadable: counter("state_unreadable_total", "Pieces of stored state that could not be read and were left out.")?,
            relearned: counter("read_again_total", "Entries of the log read again after a start, because what is stored lags behind.")?,
            lost: counter("read_again_lost_total", "Entries of the log that had to be read again after a start and had been removed.")?,
        })
    }

    /// Shows them; those of an earlier start of the module are taken out.
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let alone = [&self.unreadable, &self.relearned, &self.lost];
        for counter in self.counters.iter().map(|(counter, _)| counter).chain(alone) {
            show(registry, counter)?;
        }
        self.gauges.iter().try_for_each(|(gauge, _)| show(registry, gauge))
    }

    /// A piece of stored state was left out.
    pub(crate) fn unreadable(&self) {
        self.unreadable.inc();
    }

    /// So many entries were read again, and so many were gone.
    pub(crate) fn relearned(&self, again: u64, lost: u64) {
        self.relearned.inc_by(again);
        self.lost.inc_by(lost);
    }

    /// Adds what was counted since `before`.
    pub(crate) fn tell(&self, before: &Counts, now: &Counts) {
        for (counter, of) in &self.counters {
            let more = of(now).saturating_sub(of(before));
            if more > 0 {
                counter.inc_by(more);
            }
        }
        self.unreadable.inc_by(now.unreadable.saturating_sub(before.unreadable));
        for (gauge, of) in &self.gauges {
            gauge.set(i64::try_from(of(now)).unwrap_or(i64::MAX));
        }
    }
}

fn show(registry: &Registry, metric: &(impl Collector + Clone + 'static)) -> Result<(), prometheus::Error> {
    // nothing of that name may be there yet
    drop(registry.unregister(Box::new(metric.clone())));
    registry.register(Box::new(metric.clone()))
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
            assert_eq!(shown.len(), COUNTERS.len() + GAUGES.len() + 3);
        }
    }
}
