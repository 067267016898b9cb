//! No signals, values and times make a detector panic.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use opspilot_detectors::offline;
use opspilot_kernel::{
    codec::{Labels, PieceBuilder},
    signal::{AlertState, LogEntry, SignalBlock, SignalKind, SignalRef},
    time::Timestamp,
};
use serde_json::{Value, json};

/// Each detector with rules that ask for much.
static DETECTORS: LazyLock<Vec<(&str, Value)>> = LazyLock::new(|| {
    let small = json!({ "window": 4, "min_samples": 2, "rest": 1 });
    vec![
        ("detector.regex", json!({ "rules": [{ "id": "r", "pattern": r"(?i)err(?P<code>\d+)?", "exclude": ["fine"], "resolve_pattern": "ok" }] })),
        ("detector.logTemplate", json!({ "max_series": 8, "max_templates": 64, "rules": [
            { "id": "t", "new": "all", "stops": true, "learning": "1s", "learning_lines": 1, "burst_baseline": "1m" }] })),
        ("detector.threshold", json!({ "rules": [
            { "id": "a", "metric": "m", "agg": "p95", "window": "1m", "op": "gt", "value": 1, "for": "1s", "absent_after": "5s" },
            { "id": "b", "metric": "m", "agg": "rate", "window": "5m", "op": "lt", "value": 1, "keep_firing_for": "1m" }] })),
        ("detector.anomaly", json!({ "max_series": 2, "rules": [
            { "id": "z", "metric": "m", "method": { "zscore": small } }, { "id": "q", "metric": "m", "method": { "mad": small } },
            { "id": "i", "metric": "m", "method": { "iqr": small } }, { "id": "e", "metric": "m", "method": { "ewma": small } },
            { "id": "x", "extract": { "pattern": r"(?P<value>[-+\d.eE]+) (?P<who>\w+)" } }] })),
        ("detector.heartbeat", json!({ "heartbeats": [
            { "id": "h", "period": "1m", "on_signal": ["source=~\".*\""] }, { "id": "s", "schedule": "*/7 3 * * *", "on_alert": ["source=~\".*\""] }] })),
        ("detector.alert", json!({})),
    ]
});

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn eight(&mut self) -> Option<[u8; 8]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (taken, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*taken)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(String::from_utf8_lossy(taken).into_owned())
    }
}

/// The next entry of a log, as the bytes say.
fn entry(bytes: &mut Bytes<'_>, seq: u64, now: &mut Timestamp) -> Option<LogEntry> {
    let what = bytes.byte()?;
    // any time at all now and then, and otherwise a little later
    *now = match what & 0x30 {
        0 => Timestamp::from_millis(i64::from_le_bytes(bytes.eight()?)),
        _ => Timestamp::from_millis(now.millis().saturating_add(i64::from(bytes.byte()?) * 997)),
    };
    let (at, text) = (Timestamp::from_millis(i64::from_le_bytes(bytes.eight()?)), bytes.text()?);
    let at = if what & 0x40 == 0 { *now } else { at };
    let value = f64::from_bits(u64::from_le_bytes(bytes.eight()?));
    let labels = [("id", text.as_str())];
    let labels = if what & 0x80 == 0 { Labels::Pairs(&[]) } else { Labels::Pairs(&labels) };
    let source = if what & 4 == 0 { "a" } else { "b" };
    let signal = match what & 3 {
        0 => return Some(LogEntry::Tick { seq, at: *now }),
        1 => SignalRef { labels, ..SignalRef::log(at, source, &text) },
        2 => SignalRef { labels, ..SignalRef::metric(at, source, "m", value) },
        _ => {
            let state = if what & 8 == 0 { AlertState::Firing } else { AlertState::Resolved };
            SignalRef { labels, name: "n", title: &text, state, ..SignalRef::bare(SignalKind::Alert, at, source) }
        }
    };
    let mut piece = PieceBuilder::default();
    piece.push(&signal);
    let kinds = piece.kinds();
    let block = SignalBlock { first_seq: seq, last_seq: seq, received_at: *now, kinds, pieces: vec![piece.into_bytes()] };
    Some(LogEntry::Batch(Arc::new(block)))
}

fuzz_target!(|data: &[u8]| {
    for (id, section) in DETECTORS.iter() {
        let mut detector = offline(id, section.clone()).expect("the configuration is good");
        let (mut bytes, mut now, mut out) = (Bytes(data), Timestamp::from_millis(1_800_000_000_000), Vec::new());
        let mut seq = 0;
        while let Some(entry) = entry(&mut bytes, seq + 1, &mut now) {
            seq += 1;
            detector.consume(&entry, &mut out);
            assert!(detector.next_due().is_none_or(|due| due >= Timestamp::ZERO));
        }
    }
});
