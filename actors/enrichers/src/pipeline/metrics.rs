//! What the pipeline counts.

use std::collections::BTreeMap;

use opspilot_kernel::signal::Severity;
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

/// What can hold an alert back, as it stands before the colon.
const REASONS: [&str; 3] = ["silence", "maintenance", "inhibition"];

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub(super) entries: IntCounter,
    pub(super) conflicts: IntCounter,
    pub(super) dead_letters: IntCounter,
    pub(super) behind: IntGauge,
    open: IntGaugeVec,
    suppressed: IntGaugeVec,
    pub(super) ending: IntGauge,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let metrics = Metrics {
            entries: IntCounter::new("opspilot_pipeline_entries_total", "Entries of the alert log that were decided on.")?,
            conflicts: IntCounter::new(
                "opspilot_pipeline_conflicts_total",
                "Batches that were decided again because a person changed an incident meanwhile.",
            )?,
            dead_letters: IntCounter::new("opspilot_pipeline_dead_letters_total", "Entries that were set aside.")?,
            behind: IntGauge::new("opspilot_pipeline_behind", "Entries of the alert log that wait.")?,
            open: IntGaugeVec::new(Opts::new("opspilot_incidents_open", "Incidents that are not resolved."), &["severity"])?,
            suppressed: IntGaugeVec::new(
                Opts::new("opspilot_alerts_suppressed", "Alerts that fire and are held back from people, by what does it."),
                &["reason"],
            )?,
            ending: IntGauge::new("opspilot_silences_ending", "Silences that end soon and still hold an alert back that fires.")?,
        };
        registry.register(Box::new(metrics.entries.clone()))?;
        registry.register(Box::new(metrics.conflicts.clone()))?;
        registry.register(Box::new(metrics.dead_letters.clone()))?;
        registry.register(Box::new(metrics.behind.clone()))?;
        registry.register(Box::new(metrics.open.clone()))?;
        registry.register(Box::new(metrics.suppressed.clone()))?;
        registry.register(Box::new(metrics.ending.clone()))?;
        metrics.suppressed(&BTreeMap::new());
        for severity in Severity::ALL {
            metrics.open.with_label_values(&[severity.as_str()]).set(0);
        }
        Ok(metrics)
    }

    pub(super) fn suppressed(&self, counts: &BTreeMap<String, u64>) {
        for reason in REASONS {
            let count = counts.get(reason).copied().unwrap_or(0);
            self.suppressed.with_label_values(&[reason]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn open(&self, counts: &BTreeMap<Severity, u64>) {
        for (severity, count) in counts {
            self.open.with_label_values(&[severity.as_str()]).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
}
