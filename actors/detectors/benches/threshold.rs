//! How many points of a metric a second the threshold detector takes on one core, over 10,000 series, by what is asked of
//! their windows; and how many bytes it gives to be stored for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs, reason = "a bench fails loudly and prints")]

use std::{sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use opspilot_detectors::{
    Detect,
    threshold::{Comparison, Config, Detector, Rule},
};
use opspilot_kernel::{
    codec::{Labels, PieceBuilder},
    config::Span,
    signal::{LogEntry, SignalBlock, SignalRef},
    time::Timestamp,
};

const SERIES: u32 = 10_000;
/// A value of every series each so many seconds.
const EVERY: i64 = 10;

/// One value of every series.
fn round(n: u64) -> LogEntry {
    let at = Timestamp::from_millis(1_795_348_800_000 + i64::try_from(n).unwrap() * EVERY * 1000);
    let mut piece = PieceBuilder::default();
    for series in 0..SERIES {
        let (host, path) = (format!("web-{}", series % 100), format!("/api/v1/resource/{}", series / 100));
        let labels = [("env", "prod"), ("path", path.as_str())];
        // a counter with a bit of everything in its steps
        let value = f64::from(series) + 17.0 * f64::from(u32::try_from(n).unwrap()) + f64::from((series ^ u32::try_from(n).unwrap()) % 13);
        piece.push(&SignalRef { labels: Labels::Pairs(&labels), ..SignalRef::metric(at, &host, "requests_total", value) });
    }
    let first_seq = n * u64::from(SERIES) + 1;
    let kinds = piece.kinds();
    let last_seq = first_seq + u64::from(SERIES) - 1;
    LogEntry::Batch(Arc::new(SignalBlock { first_seq, last_seq, received_at: at, kinds, pieces: vec![piece.into_bytes()] }))
}

fn detector(agg: &str, window: u64) -> Detector {
    let rule = Rule { agg: agg.parse().unwrap(), window: Span::seconds(window), ..Rule::new("r", "requests_total", Comparison::Gt, 1e12) };
    Detector::build(&Config { rules: vec![rule], builtin_rules: false, max_series: 100_000, ..Config::default() })
}

fn points(c: &mut Criterion) {
    let mut group = c.benchmark_group("threshold");
    group.throughput(Throughput::Elements(u64::from(SERIES))).sample_size(20).measurement_time(Duration::from_secs(4));
    let rounds: Vec<LogEntry> = (0..400).map(round).collect();
    for (agg, window) in [("last", 60), ("avg", 300), ("p95", 300), ("rate", 300), ("avg", 3600), ("p95", 3600), ("rate", 3600)] {
        let mut detector = detector(agg, window);
        let mut out = Vec::new();
        let mut next = 0_usize;
        // windows are full before anything is measured
        for entry in rounds.iter().take(370) {
            detector.consume(entry, &mut out);
            next += 1;
        }
        detector.changed();
        detector.consume(rounds.get(next).unwrap(), &mut out);
        next += 1;
        let bytes: usize = detector.changed().iter().map(|change| change.key.len() + change.body.as_ref().map_or(0, Vec::len)).sum();
        println!("{agg} over {window} s: {} bytes a series for each commit in which it changed", bytes / usize::try_from(SERIES).unwrap());
        let mut n = u64::try_from(next).unwrap();
        group.bench_function(BenchmarkId::new(agg, format!("{window}s")), |b| {
            b.iter_batched(
                || {
                    n += 1;
                    round(n)
                },
                |entry| detector.consume(&entry, &mut out),
                criterion::BatchSize::PerIteration,
            );
        });
        assert!(out.is_empty());
    }
    group.finish();
}

criterion_group!(benches, points);
criterion_main!(benches);
