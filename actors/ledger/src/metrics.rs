//! What the ledger counts. The registry is handed in; label values come from closed sets.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::ledger::Priority;

/// The ledger's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) accepted: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub(crate) clamped: IntCounter,
    pub(crate) claims: IntGauge,
    pub(crate) claims_evicted: IntCounter,
    pub(crate) queue_depth: IntGaugeVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) commit_seconds: Histogram,
    pub(crate) group_jobs: Histogram,
    pub(crate) group_signals: Histogram,
    pub(crate) commits: IntCounter,
    pub(crate) rollbacks: IntCounter,
    pub(crate) job_panics: IntCounter,
    pub(crate) writer_restarts: IntCounter,
    pub(crate) stored_bytes: IntCounter,
    pub(crate) wal_bytes: IntGauge,
    pub(crate) ring_bytes: IntGaugeVec,
    pub(crate) log_bytes: IntGaugeVec,
    pub(crate) storage_failed: IntGauge,
    pub(crate) storage_failures: IntCounterVec,
    pub(crate) storage_healed: IntCounter,
    pub(crate) checkpoints: IntCounter,
    pub(crate) checkpoint_seconds: Histogram,
    pub(crate) retained: IntCounterVec,
    pub(crate) gaps: IntCounter,
    pub(crate) audit_size: IntGauge,
    pub(crate) audit_checkpoints: IntCounter,
    pub(crate) audit_checkpoint_size: IntGauge,
    pub(crate) denied_coalesced: IntCounter,
    pub(crate) denied_lost: IntCounter,
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, prometheus::Error> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, prometheus::Error> {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

impl Metrics {
    /// Makes and registers all of them.
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let seconds = || vec![0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
        let sizes = || prometheus::exponential_buckets(1.0, 4.0, 10);
        let r = registry;
        Ok(Metrics {
            accepted: counter(r, "opspilot_signals_accepted_total", "Signals stored durably.")?,
            duplicates: counter(r, "opspilot_signals_duplicate_total", "Signals dropped because their source and id were known.")?,
            clamped: counter(r, "opspilot_signals_clamped_total", "Signals whose time lay more than five minutes ahead.")?,
            claims: gauge(r, "opspilot_ledger_claims", "Pairs of source and id that are remembered.")?,
            claims_evicted: counter(r, "opspilot_ledger_claims_evicted_total", "Pairs of source and id forgotten early, at the bound.")?,
            queue_depth: gauges(r, "opspilot_queue_depth", "Jobs that wait for the writer.", "queue")?,
            refused: counters(r, "opspilot_ledger_refused_total", "Jobs refused because a queue was full.", "queue")?,
            commit_seconds: histogram(r, "opspilot_ledger_commit_seconds", "Time of a group commit, fsync included.", seconds())?,
            group_jobs: histogram(r, "opspilot_ledger_group_jobs", "Jobs in a group commit.", sizes()?)?,
            group_signals: histogram(r, "opspilot_ledger_group_signals", "Signals in a group commit.", sizes()?)?,
            commits: counter(r, "opspilot_ledger_commits_total", "Group commits.")?,
            rollbacks: counter(r, "opspilot_ledger_rollbacks_total", "Group commits that failed as a whole.")?,
            job_panics: counter(r, "opspilot_ledger_job_panics_total", "Jobs that panicked and were rolled back.")?,
            writer_restarts: counter(r, "opspilot_ledger_writer_restarts_total", "Times the writer rebuilt its connection.")?,
            stored_bytes: counter(r, "opspilot_ledger_signal_bytes_total", "Bytes of signals stored, compressed, with their filters.")?,
            wal_bytes: gauge(r, "opspilot_ledger_wal_bytes", "Size of the write-ahead log.")?,
            ring_bytes: gauges(r, "opspilot_ledger_ring_bytes", "Memory that the newest entries of a log hold.", "log")?,
            log_bytes: gauges(
                r,
                "opspilot_ledger_log_bytes",
                "What the rows of a log take on disk, as its size limit counts them.",
                "log",
            )?,
            storage_failed: gauge(r, "opspilot_storage_failed", "1 while storage refuses writes.")?,
            storage_failures: counters(r, "opspilot_storage_failures_total", "Times storage began to refuse writes.", "reason")?,
            storage_healed: counter(r, "opspilot_storage_healed_total", "Times storage took writes again after it had failed.")?,
            checkpoints: counter(r, "opspilot_ledger_checkpoints_total", "Checkpoints of the write-ahead log.")?,
            checkpoint_seconds: histogram(r, "opspilot_ledger_checkpoint_seconds", "Time of a checkpoint.", seconds())?,
            retained: counters(r, "opspilot_ledger_retention_deleted_total", "Rows deleted by retention.", "table")?,
            gaps: counter(r, "opspilot_ledger_retention_gaps_total", "Times a size limit deleted what a follower had not read.")?,
            audit_size: gauge(r, "opspilot_audit_records", "Entries of the audit chain.")?,
            audit_checkpoints: counter(r, "opspilot_audit_checkpoints_total", "Checkpoints of the audit log that were signed.")?,
            audit_checkpoint_size: gauge(r, "opspilot_audit_checkpoint_size", "Entries that the newest checkpoint of this run covers.")?,
            denied_lost: counter(
                r,
                "opspilot_audit_refused_total",
                "Denied attempts that could not be put on record: the queue was full or storage failed.",
            )?,
            denied_coalesced: counter(r, "opspilot_audit_denied_coalesced_total", "Denied attempts counted in a summary entry.")?,
        })
    }

    /// A full queue refused a job.
    pub(crate) fn refused(&self, priority: Priority) {
        self.refused.with_label_values(&[queue_name(priority)]).inc();
    }

    /// How many jobs wait.
    pub(crate) fn queued(&self, (control, bulk): (usize, usize)) {
        for (priority, depth) in [(Priority::Control, control), (Priority::Bulk, bulk)] {
            self.queue_depth.with_label_values(&[queue_name(priority)]).set(i64::try_from(depth).unwrap_or(i64::MAX));
        }
    }
}

fn queue_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Control => "control",
        Priority::Bulk => "bulk",
    }
}
