//! What `connector.fileTail` counts.

use prometheus::{IntCounter, IntGauge, Registry};

use super::engine::{Counts, Engine};
use crate::meters::show;

/// The module's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    records: IntCounter,
    bytes: IntCounter,
    lossy: IntCounter,
    cut: IntCounter,
    split: IntCounter,
    rotated: IntCounter,
    truncated: IntCounter,
    lost_bytes: IntCounter,
    read_errors: IntCounter,
    files: IntGauge,
    open: IntGauge,
    behind: IntGauge,
    /// How long the ledger let the reader wait.
    pub(crate) waited: IntCounter,
}

impl Meters {
    /// Registers them.
    pub(crate) fn new(registry: &Registry) -> Result<Meters, prometheus::Error> {
        let counter = |name: &str, help: &str| show(registry, IntCounter::new(format!("opspilot_file_tail_{name}"), help));
        let gauge = |name: &str, help: &str| show(registry, IntGauge::new(format!("opspilot_file_tail_{name}"), help));
        Ok(Meters {
            records: counter("records_total", "Log records read from files.")?,
            bytes: counter("bytes_total", "Bytes read from files.")?,
            lossy: counter("lossy_records_total", "Records with bytes that are not UTF-8; those bytes were replaced.")?,
            cut: counter("cut_lines_total", "Lines cut because they were longer than max_line.")?,
            split: counter("split_records_total", "Multi-line records ended by max_lines or max_bytes.")?,
            rotated: counter("rotated_total", "Files that were renamed or deleted while they were followed.")?,
            truncated: counter("truncated_total", "Files that were truncated or overwritten while they were followed.")?,
            lost_bytes: counter("lost_bytes_total", "Bytes of files that were deleted before they were read.")?,
            read_errors: counter("read_errors_total", "Failed attempts to open or read a file.")?,
            files: gauge("files", "Files that are followed.")?,
            open: gauge("open_files", "Files that are held open.")?,
            behind: gauge("behind_bytes", "Bytes known to wait in followed files.")?,
            waited: counter("ledger_waits_total", "Times that reading stopped because the ledger could not take more.")?,
        })
    }

    /// Brings them up to date; `told` is what they were told last.
    pub(crate) fn tell(&self, told: &mut Counts, engine: &Engine) {
        let now = engine.counts;
        for (counter, now, before) in [
            (&self.records, now.records, told.records),
            (&self.bytes, now.bytes, told.bytes),
            (&self.lossy, now.lossy, told.lossy),
            (&self.cut, now.cut, told.cut),
            (&self.split, now.split, told.split),
            (&self.rotated, now.rotated, told.rotated),
            (&self.truncated, now.truncated, told.truncated),
            (&self.lost_bytes, now.lost_bytes, told.lost_bytes),
            (&self.read_errors, now.read_errors, told.read_errors),
        ] {
            counter.inc_by(now.saturating_sub(before));
        }
        *told = now;
        let (files, open) = engine.files();
        self.files.set(i64::try_from(files).unwrap_or(i64::MAX));
        self.open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.behind.set(i64::try_from(engine.behind()).unwrap_or(i64::MAX));
    }
}
