//! How fast the whole detector takes values in, by method, and what a series takes in memory.
//!
//! `cargo bench --bench anomaly_detector`; with `SERIES=100000` it prints the memory of so many active series instead.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark fails loudly and prints what it finds")]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput};
use opspilot_detectors::{Detect, anomaly};
use opspilot_kernel::{
    codec::{Labels, PieceBuilder},
    signal::{KindSet, LogEntry, SignalBlock, SignalKind, SignalRef},
    time::Timestamp,
};
use serde_json::json;

const START: i64 = 1_795_348_800_000;

/// A value of every series for one minute, in blocks of a thousand.
fn minute(minute: i64, series: &[String], seq: &mut u64, noise: &mut u64) -> Vec<LogEntry> {
    let at = Timestamp::from_millis(START + minute * 60_000);
    series
        .chunks(1000)
        .map(|chunk| {
            let mut piece = PieceBuilder::default();
            for (who, name) in chunk.iter().enumerate() {
                *noise ^= *noise << 13;
                *noise ^= *noise >> 7;
                *noise ^= *noise << 17;
                let wave = (f64::from(i32::try_from(minute).unwrap()) / 229.0).sin() * 20.0;
                let value =
                    50.0 + wave + f64::from(u32::try_from(*noise % 1000).unwrap()) / 100.0 + f64::from(u32::try_from(who % 7).unwrap());
                let labels = [("service", name.as_str()), ("zone", "eu-central-1"), ("instance", "10.0.0.7:9100")];
                piece.push(&SignalRef {
                    name: "http_request_duration_seconds",
                    value: Some(value),
                    labels: Labels::Pairs(&labels),
                    ..SignalRef::bare(SignalKind::Metric, at, "gateway")
                });
            }
            let first_seq = *seq + 1;
            *seq += u64::from(piece.count());
            let block =
                SignalBlock { first_seq, last_seq: *seq, received_at: at, kinds: KindSet::from_bits(2), pieces: vec![piece.into_bytes()] };
            LogEntry::Batch(Arc::new(block))
        })
        .collect()
}

fn detector(method: &str) -> anomaly::Detector {
    let config: anomaly::Config = serde_json::from_value(json!({
        "builtin_rules": false, "max_series": 1_000_000, "max_bytes": "64GiB",
        "rules": [{ "id": "all", "match": ["__name__=~\".+\""], "method": method }],
    }))
    .unwrap();
    anomaly::Detector::build(&config)
}

/// What the process holds, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn memory(count: usize) {
    let series: Vec<String> = (0..count).map(|n| format!("service-{n}")).collect();
    let minutes: i64 = std::env::var("MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(1100);
    for method in ["zscore", "auto"] {
        let before = resident();
        let mut detector = detector(method);
        let (mut seq, mut noise, mut out) = (0, 7, Vec::new());
        for at in 0..minutes {
            for entry in minute(at, &series, &mut seq, &mut noise) {
                detector.consume(&entry, &mut out);
            }
            out.clear();
        }
        let counts = detector.counts();
        println!(
            "{method}: {} series after {minutes} values each: {} bytes each by its own account, {} by the process",
            counts.open,
            counts.bytes / counts.open.max(1),
            resident().saturating_sub(before) / counts.open.max(1),
        );
        drop(detector);
    }
}

fn speed(criterion: &mut Criterion) {
    let series: Vec<String> = (0..1000).map(|n| format!("service-{n}")).collect();
    let mut group = criterion.benchmark_group("anomaly/consume");
    group.sample_size(20);
    for method in ["auto", "zscore", "mad", "iqr", "ewma"] {
        let mut detector = detector(method);
        let (mut seq, mut noise, mut out, mut at) = (0, 7, Vec::new(), 0);
        for _ in 0..2000 {
            minute(at, &series, &mut seq, &mut noise).iter().for_each(|entry| detector.consume(entry, &mut out));
            at += 1;
            out.clear();
        }
        group.throughput(Throughput::Elements(1000));
        group.bench_function(method, |bencher| {
            bencher.iter_batched(
                || {
                    at += 1;
                    minute(at, &series, &mut seq, &mut noise)
                },
                |entries| {
                    entries.iter().for_each(|entry| detector.consume(entry, &mut out));
                    out.clear();
                    black_box(entries)
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn main() {
    if let Some(count) = std::env::var("SERIES").ok().and_then(|text| text.parse().ok()) {
        return memory(count);
    }
    let mut criterion = Criterion::default().configure_from_args();
    speed(&mut criterion);
    criterion.final_summary();
}
