//! What the explainer counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    /// By outcome: `full`, `degraded`, `unchanged`, `superseded`, `failed`.
    pub(super) explanations: IntCounterVec,
    pub(super) seconds: Histogram,
    pub(super) signals: IntCounter,
    pub(super) dropped: IntCounter,
    pub(super) pending: IntGauge,
}

/// What can become of an explanation.
pub(super) const OUTCOMES: [&str; 5] = ["full", "degraded", "unchanged", "superseded", "failed"];

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let seconds = HistogramOpts::new("opspilot_explanation_seconds", "How long explaining an incident took.")
            .buckets(vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]);
        let metrics = Metrics {
            explanations: IntCounterVec::new(
                Opts::new("opspilot_explanations_total", "Explanations, by what became of them."),
                &["outcome"],
            )?,
            seconds: Histogram::with_opts(seconds)?,
            signals: IntCounter::new("opspilot_explanation_signals_total", "Signals that explanations looked at.")?,
            dropped: IntCounter::new("opspilot_explanation_claims_dropped_total", "Claims that could not be proved and were left out.")?,
            pending: IntGauge::new("opspilot_explanations_pending", "Incidents that wait to be explained.")?,
        };
        let all = || -> [Box<dyn Collector>; 5] {
            let Metrics { explanations, seconds, signals, dropped, pending } = metrics.clone();
            [Box::new(explanations), Box::new(seconds), Box::new(signals), Box::new(dropped), Box::new(pending)]
        };
        // those of an earlier start of the module go; there may be none
        all().into_iter().for_each(|collector| drop(registry.unregister(collector)));
        all().into_iter().try_for_each(|collector| registry.register(collector))?;
        for outcome in OUTCOMES {
            metrics.explanations.with_label_values(&[outcome]).inc_by(0);
        }
        Ok(metrics)
    }

    pub(super) fn outcome(&self, outcome: &'static str) {
        self.explanations.with_label_values(&[outcome]).inc();
    }
}
